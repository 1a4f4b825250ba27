from enum import StrEnum


class TemplateOrigin(StrEnum):
    BUILD = "build"
    HOST = "host"
    SANDBOX = "sandbox"

    def __str__(self) -> str:
        return str(self.value)
