"""Contains all the data models used in inputs/outputs"""

from .alive import Alive
from .build import Build
from .build_cancel import BuildCancel
from .build_create import BuildCreate
from .build_default_env import BuildDefaultEnv
from .build_links import BuildLinks
from .build_list import BuildList
from .build_reason import BuildReason
from .build_status import BuildStatus
from .cancel import Cancel
from .error import Error
from .error_body import ErrorBody
from .log_end import LogEnd
from .log_page import LogPage
from .log_record import LogRecord
from .log_stream import LogStream
from .planned_step import PlannedStep
from .problem import Problem
from .ready import Ready
from .recipe_step import RecipeStep
from .service_check import ServiceCheck
from .step_entry import StepEntry
from .step_phase import StepPhase
from .step_truncated import StepTruncated
from .template import Template
from .template_default_env import TemplateDefaultEnv
from .template_list import TemplateList
from .template_type import TemplateType
from .validation import Validation

__all__ = (
    "Alive",
    "Build",
    "BuildCancel",
    "BuildCreate",
    "BuildDefaultEnv",
    "BuildLinks",
    "BuildList",
    "BuildReason",
    "BuildStatus",
    "Cancel",
    "Error",
    "ErrorBody",
    "LogEnd",
    "LogPage",
    "LogRecord",
    "LogStream",
    "PlannedStep",
    "Problem",
    "Ready",
    "RecipeStep",
    "ServiceCheck",
    "StepEntry",
    "StepPhase",
    "StepTruncated",
    "Template",
    "TemplateDefaultEnv",
    "TemplateList",
    "TemplateType",
    "Validation",
)
