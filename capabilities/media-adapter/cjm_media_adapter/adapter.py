"""The task `media`: what a file holds, and the same in another format.

What: one class, bound beside a tool that has `get_info` and `convert`; it is the example of an adapter in
`docs/CAPABILITIES-OF-THE-ANCESTOR.md`.
What not: a tool. It neither runs ffmpeg nor knows which tool it is bound to.
Must hold: its methods take and give plain JSON, so that every host can call them.
"""

from typing import Any, Protocol

from cjm_substrate.core.adapter import TaskAdapter


class MediaTool(Protocol):
    """What a tool must have."""

    def get_info(self, file_path): ...

    def convert(self, input_path, output_dir, output_format, sample_rate=None, channels=None): ...


class MediaAdapter(TaskAdapter):
    """Serves the task by the tool it is bound to."""

    task_name = "media"
    required_tool_protocol = MediaTool

    def __init__(self, tool: MediaTool):
        self.tool = tool

    def describe(self, path: str) -> dict[str, Any]:
        """Duration in seconds, format and size in bytes of a file."""
        info = _plain(self.tool.get_info(path))
        return {key: info.get(key) for key in ("duration", "format", "size_bytes")}

    def convert(self, path: str, folder: str, to: str, rate: int | None = None, channels: int | None = None):
        """Writes `path` into `folder` in the format `to`; returns where."""
        made = _plain(self.tool.convert(path, folder, to, sample_rate=rate, channels=channels))
        return {"path": made["output_path"]}


def _plain(result):
    to_dict = getattr(result, "to_dict", None)
    return to_dict() if callable(to_dict) else dict(vars(result))
