from enum import StrEnum


class SandboxStatus(StrEnum):
    CREATING = "creating"
    DESTROYED = "destroyed"
    DESTROYING = "destroying"
    FAILED = "failed"
    PAUSED = "paused"
    PAUSING = "pausing"
    RESUMING = "resuming"
    RUNNING = "running"
    SAVING = "saving"

    def __str__(self) -> str:
        return str(self.value)
