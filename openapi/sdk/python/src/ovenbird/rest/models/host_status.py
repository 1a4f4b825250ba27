from enum import StrEnum


class HostStatus(StrEnum):
    DRAINING = "draining"
    ONLINE = "online"
    PENDING = "pending"
    UNREACHABLE = "unreachable"

    def __str__(self) -> str:
        return str(self.value)
