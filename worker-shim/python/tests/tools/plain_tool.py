"""The least tool there is; what is loaded after it is what the SDK itself needs."""

from cjm_sdk import Capability, action


class Plain(Capability):
    @action
    def modules(self):
        import sys

        return sorted(sys.modules)
