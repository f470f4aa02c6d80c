"""The tool itself. It runs under the ancestor's worker, in an environment that has the ancestor."""

from cjm_substrate.core.capability import ToolCapability


class BenchCapability(ToolCapability):
    """Answers what the other tools of the bench answer."""

    @property
    def name(self):
        return "bench-ancestor"

    @property
    def version(self):
        return "1.0.0"

    def initialize(self, config=None):
        pass

    def execute(self, action="echo", **kwargs):
        return {"ok": True}

    def get_config_schema(self):
        return {}

    def get_current_config(self):
        return {}

    def cleanup(self):
        pass
