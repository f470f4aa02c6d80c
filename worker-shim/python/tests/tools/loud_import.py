"""A module that fails at import, loudly."""

print("importing…")
import a_module_that_is_not_there  # noqa: E402,F401
