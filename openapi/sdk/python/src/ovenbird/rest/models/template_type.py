from enum import StrEnum


class TemplateType(StrEnum):
    IMAGE = "image"
    SNAPSHOT = "snapshot"

    def __str__(self) -> str:
        return str(self.value)
