// The console: what starts it, and the switches at its top.

import { startAdding } from "./adding.js";
import { call, whenLocked } from "./api.js";
import { contexts } from "./contexts.js";
import { askAs, startConversation } from "./conversation.js";
import { askForKey, startDialogs } from "./dialogs.js";
import { startDocument } from "./document.js";
import { byId, fill, icon } from "./dom.js";
import { languageNow, sayAll, speak, t, whenSaidAnew } from "./i18n.js";
import { kept } from "./kept.js";
import { startList } from "./list.js";
import { startLive } from "./live.js";
import { notice } from "./say.js";
import { show, startViews } from "./views.js";

const AGAIN_MS = 5000;
const THEMES = { system: "light", light: "dark", dark: "system" }; // and what comes after each
const SIGNS = { system: "system", light: "sun", dark: "moon" };

const themeNow = () => document.documentElement.dataset.theme ?? "system";

function startSwitches() {
  const render = () => {
    const [theme, other] = [themeNow(), languageNow() === "ja" ? "en" : "ja"];
    fill(byId("theme"), icon(SIGNS[theme]));
    byId("theme").setAttribute("aria-label", t(`theme.${theme}`));
    byId("theme").title = t(`theme.${theme}`);
    byId("language").textContent = other === "ja" ? "日本語" : "English";
    byId("language").lang = other;
  };
  byId("theme").addEventListener("click", () => {
    const next = THEMES[themeNow()];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    kept.set("theme", next);
    render();
  });
  byId("language").addEventListener("click", () => speak(languageNow() === "ja" ? "en" : "ja"));
  whenSaidAnew(render);
  render();
}

const named = () => {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null;
  }
};

/** The address names the context that is chosen, so that it is chosen again when the page is loaded anew. */
function startAddress() {
  contexts.addEventListener("chosen", () => {
    const hash = contexts.chosen === null ? "" : `#${encodeURIComponent(contexts.chosen)}`;
    history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
  });
  addEventListener("hashchange", () => chooseNamed());
}

function chooseNamed() {
  const id = named();
  if (id === null || !contexts.get(id)) return;
  contexts.choose(id);
  show("ask");
}

/** Load what there is; while the server is not reached, again and again. */
async function load() {
  try {
    const { data } = await call("v1/models");
    // `model@context` is the same model, for clients that can choose nothing but a model.
    const model = data.map(({ id }) => id).find((id) => !id.includes("@")) ?? data[0]?.id.split("@")[0];
    askAs(model);
    byId("model").textContent = model ?? "";
    await contexts.load();
    notice(null);
    chooseNamed();
  } catch (error) {
    notice(error);
    if (error.status === 0 || error.status === 429 || error.status >= 500) setTimeout(load, AGAIN_MS);
  }
}

function startLooking() {
  let seen = Date.now();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || Date.now() - seen < AGAIN_MS || !contexts.loaded) return;
    seen = Date.now();
    contexts.load().catch(notice);
  });
}

sayAll();
whenLocked(askForKey);
startSwitches();
startViews();
startDialogs();
startAdding();
startList();
startConversation();
startDocument();
startAddress();
startLooking();
await load();
startLive();
