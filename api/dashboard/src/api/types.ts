// Short names for the shapes that are generated from openapi.json.

import type { components } from "./schema";

type Schemas = components["schemas"];

export type Build = Schemas["Build"];
export type BuildCreate = Schemas["BuildCreate"];
export type BuildStatus = Schemas["BuildStatus"];
export type ExecResult = Schemas["ExecResult"];
export type LogRecord = Schemas["LogRecord"];
export type Problem = Schemas["Problem"];
export type Queue = Schemas["Queue"];
export type RecipeEntry = Schemas["RecipeEntry"];
export type Sandbox = Schemas["Sandbox"];
export type Session = Schemas["Session"];
export type StepEntry = Schemas["StepEntry"];
export type StepPhase = Schemas["StepPhase"];
export type Template = Schemas["Template"];
export type Validation = Schemas["Validation"];
export type WaitingBuild = Schemas["WaitingBuild"];
