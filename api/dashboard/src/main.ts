// The dashboard's entry: styles and fonts, then the page.

import "@fontsource-variable/inter/wght.css";
import "@fontsource-variable/jetbrains-mono/wght.css";
import { mount } from "svelte";
import App from "./App.svelte";
import "./styles/base.css";
import "./styles/tokens.css";

const target = document.getElementById("page");
if (target === null) throw new Error("index.html has no element for the page");
mount(App, { target });
