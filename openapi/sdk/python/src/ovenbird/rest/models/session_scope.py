from enum import StrEnum


class SessionScope(StrEnum):
    ADMIN = "admin"
    BUILD = "build"
    READ = "read"

    def __str__(self) -> str:
        return str(self.value)
