from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.log_stream import LogStream
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.log_end import LogEnd


T = TypeVar("T", bound="LogRecord")


@_attrs_define
class LogRecord:
    """One line of a build's log, or, with `end`, the record that ends it. The same over REST, SSE and NATS.

    Attributes:
        seq (int): Position in the build's log: from 1, without holes, over all attempts.
        attempt (int | Unset): The attempt that wrote it.
        cont (bool | Unset): More of the same line follows in the next record of this step and stream.
        data (str | Unset): The raw bytes in base64, where they are not UTF-8.
        end (LogEnd | Unset): How a build ended.
        step (int | Unset): The step, as you numbered it; 0 outside of the recipe.
        stream (LogStream | Unset): Where a line came from.
        text (str | Unset): The line without its end. What is not UTF-8 is replaced.
        ts (datetime.datetime | Unset): When the line was read.
    """

    seq: int
    attempt: int | Unset = UNSET
    cont: bool | Unset = UNSET
    data: str | Unset = UNSET
    end: LogEnd | Unset = UNSET
    step: int | Unset = UNSET
    stream: LogStream | Unset = UNSET
    text: str | Unset = UNSET
    ts: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        seq = self.seq

        attempt = self.attempt

        cont = self.cont

        data = self.data

        end: dict[str, Any] | Unset = UNSET
        if not isinstance(self.end, Unset):
            end = self.end.to_dict()

        step = self.step

        stream: str | Unset = UNSET
        if not isinstance(self.stream, Unset):
            stream = self.stream.value

        text = self.text

        ts: str | Unset = UNSET
        if not isinstance(self.ts, Unset):
            ts = self.ts.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "seq": seq,
            }
        )
        if attempt is not UNSET:
            field_dict["attempt"] = attempt
        if cont is not UNSET:
            field_dict["cont"] = cont
        if data is not UNSET:
            field_dict["data"] = data
        if end is not UNSET:
            field_dict["end"] = end
        if step is not UNSET:
            field_dict["step"] = step
        if stream is not UNSET:
            field_dict["stream"] = stream
        if text is not UNSET:
            field_dict["text"] = text
        if ts is not UNSET:
            field_dict["ts"] = ts

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.log_end import LogEnd

        d = dict(src_dict)
        seq = d.pop("seq")

        attempt = d.pop("attempt", UNSET)

        cont = d.pop("cont", UNSET)

        data = d.pop("data", UNSET)

        _end = d.pop("end", UNSET)
        end: LogEnd | Unset
        if isinstance(_end, Unset):
            end = UNSET
        else:
            end = LogEnd.from_dict(_end)

        step = d.pop("step", UNSET)

        _stream = d.pop("stream", UNSET)
        stream: LogStream | Unset
        if isinstance(_stream, Unset):
            stream = UNSET
        else:
            stream = LogStream(_stream)

        text = d.pop("text", UNSET)

        _ts = d.pop("ts", UNSET)
        ts: datetime.datetime | Unset
        if isinstance(_ts, Unset):
            ts = UNSET
        else:
            ts = datetime.datetime.fromisoformat(_ts)

        log_record = cls(
            seq=seq,
            attempt=attempt,
            cont=cont,
            data=data,
            end=end,
            step=step,
            stream=stream,
            text=text,
            ts=ts,
        )

        log_record.additional_properties = d
        return log_record

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
