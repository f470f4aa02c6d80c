"""A task adapter of the ancestor's family."""

from typing import Protocol

from cjm_substrate.core.adapter import TaskAdapter


class LabToolProtocol(Protocol):
    @property
    def name(self) -> str: ...

    def lab_method(self, text: str) -> str: ...


class LabAdapter(TaskAdapter):
    task_name = "lab-task"
    required_tool_protocol = LabToolProtocol

    def __init__(self, tool):
        self.tool = tool

    def run(self, text="t", fail=False):
        if fail:
            raise ValueError("x")
        return self.tool.lab_method(text)

    def wait(self):
        return self.tool.do_wait("task")
