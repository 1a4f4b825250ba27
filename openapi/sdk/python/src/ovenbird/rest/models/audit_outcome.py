from enum import StrEnum


class AuditOutcome(StrEnum):
    FAILED = "failed"
    GRANTED = "granted"
    OPEN = "open"
    REFUSED = "refused"

    def __str__(self) -> str:
        return str(self.value)
