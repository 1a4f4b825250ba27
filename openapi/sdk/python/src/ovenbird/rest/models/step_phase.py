from enum import StrEnum


class StepPhase(StrEnum):
    BOOT = "boot"
    HEALTH = "health"
    POST = "post"
    PRE = "pre"
    PUBLISH = "publish"
    STEP = "step"

    def __str__(self) -> str:
        return str(self.value)
