"""Why a pod is not injected."""


class RefusedError(ValueError):
    """A pod that cannot be what it asks for, or could get around its sidecar; one line, with what to do."""
