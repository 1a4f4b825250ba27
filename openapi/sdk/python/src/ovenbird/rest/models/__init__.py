"""Contains all the data models used in inputs/outputs"""

from .alive import Alive
from .audit_entry import AuditEntry
from .audit_list import AuditList
from .audit_outcome import AuditOutcome
from .build import Build
from .build_cancel import BuildCancel
from .build_create import BuildCreate
from .build_create_labels import BuildCreateLabels
from .build_default_env import BuildDefaultEnv
from .build_labels import BuildLabels
from .build_links import BuildLinks
from .build_list import BuildList
from .build_reason import BuildReason
from .build_status import BuildStatus
from .cancel import Cancel
from .context import Context
from .directory import Directory
from .directory_create import DirectoryCreate
from .directory_list import DirectoryList
from .entry import Entry
from .entry_kind import EntryKind
from .error import Error
from .error_body import ErrorBody
from .exec_ import Exec
from .exec_env import ExecEnv
from .exec_result import ExecResult
from .exec_truncated import ExecTruncated
from .host import Host
from .host_allocated import HostAllocated
from .host_capacity import HostCapacity
from .host_certificate import HostCertificate
from .host_create import HostCreate
from .host_create_labels import HostCreateLabels
from .host_drain import HostDrain
from .host_labels import HostLabels
from .host_list import HostList
from .host_register import HostRegister
from .host_relabel import HostRelabel
from .host_relabel_labels import HostRelabelLabels
from .host_renew import HostRenew
from .host_status import HostStatus
from .host_versions import HostVersions
from .key import Key
from .key_create import KeyCreate
from .key_list import KeyList
from .key_scope import KeyScope
from .key_status import KeyStatus
from .log_end import LogEnd
from .log_page import LogPage
from .log_record import LogRecord
from .log_stream import LogStream
from .metrics_range import MetricsRange
from .new_host import NewHost
from .new_key import NewKey
from .placement_state import PlacementState
from .planned_step import PlannedStep
from .problem import Problem
from .queue import Queue
from .ready import Ready
from .recipe_step import RecipeStep
from .sandbox import Sandbox
from .sandbox_create import SandboxCreate
from .sandbox_list import SandboxList
from .sandbox_metric import SandboxMetric
from .sandbox_metrics import SandboxMetrics
from .sandbox_reason import SandboxReason
from .sandbox_resume import SandboxResume
from .sandbox_save import SandboxSave
from .sandbox_snapshot import SandboxSnapshot
from .sandbox_status import SandboxStatus
from .service_check import ServiceCheck
from .session import Session
from .session_scope import SessionScope
from .step_entry import StepEntry
from .step_phase import StepPhase
from .step_truncated import StepTruncated
from .tag_entry import TagEntry
from .tag_list import TagList
from .tag_set import TagSet
from .template import Template
from .template_default_env import TemplateDefaultEnv
from .template_list import TemplateList
from .template_origin import TemplateOrigin
from .template_placement import TemplatePlacement
from .template_type import TemplateType
from .validation import Validation
from .wait_reason import WaitReason
from .waiting_build import WaitingBuild

__all__ = (
    "Alive",
    "AuditEntry",
    "AuditList",
    "AuditOutcome",
    "Build",
    "BuildCancel",
    "BuildCreate",
    "BuildCreateLabels",
    "BuildDefaultEnv",
    "BuildLabels",
    "BuildLinks",
    "BuildList",
    "BuildReason",
    "BuildStatus",
    "Cancel",
    "Context",
    "Directory",
    "DirectoryCreate",
    "DirectoryList",
    "Entry",
    "EntryKind",
    "Error",
    "ErrorBody",
    "Exec",
    "ExecEnv",
    "ExecResult",
    "ExecTruncated",
    "Host",
    "HostAllocated",
    "HostCapacity",
    "HostCertificate",
    "HostCreate",
    "HostCreateLabels",
    "HostDrain",
    "HostLabels",
    "HostList",
    "HostRegister",
    "HostRelabel",
    "HostRelabelLabels",
    "HostRenew",
    "HostStatus",
    "HostVersions",
    "Key",
    "KeyCreate",
    "KeyList",
    "KeyScope",
    "KeyStatus",
    "LogEnd",
    "LogPage",
    "LogRecord",
    "LogStream",
    "MetricsRange",
    "NewHost",
    "NewKey",
    "PlacementState",
    "PlannedStep",
    "Problem",
    "Queue",
    "Ready",
    "RecipeStep",
    "Sandbox",
    "SandboxCreate",
    "SandboxList",
    "SandboxMetric",
    "SandboxMetrics",
    "SandboxReason",
    "SandboxResume",
    "SandboxSave",
    "SandboxSnapshot",
    "SandboxStatus",
    "ServiceCheck",
    "Session",
    "SessionScope",
    "StepEntry",
    "StepPhase",
    "StepTruncated",
    "TagEntry",
    "TagList",
    "TagSet",
    "Template",
    "TemplateDefaultEnv",
    "TemplateList",
    "TemplateOrigin",
    "TemplatePlacement",
    "TemplateType",
    "Validation",
    "WaitReason",
    "WaitingBuild",
)
