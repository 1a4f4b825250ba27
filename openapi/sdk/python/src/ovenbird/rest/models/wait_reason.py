from enum import StrEnum


class WaitReason(StrEnum):
    BASE_DELETED = "base_deleted"
    NEXT = "next"
    NOT_RELAYED = "not_relayed"
    NO_HOST = "no_host"
    NO_ROOM = "no_room"
    NO_RUNNER = "no_runner"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return str(self.value)
