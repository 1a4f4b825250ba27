from enum import StrEnum


class PlacementState(StrEnum):
    DELETING = "deleting"
    MISSING = "missing"
    PRESENT = "present"

    def __str__(self) -> str:
        return str(self.value)
