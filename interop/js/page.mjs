// The page of one client in a browser; browser.mjs bundles it with an SDK, opens it and
// passes lines to and from it. It shows them, for the pictures that are taken of it.

import * as sdk from "sdk";
import { responder } from "./operations.mjs";

document.title = location.hostname;
const log = document.body.appendChild(document.createElement("pre"));
const lines = [];

function show(line) {
  lines.push(line.length > 160 ? line.slice(0, 160) + "…" : line);
  log.textContent = lines.slice(-40).join("\n");
}

const answer = responder(sdk, { agent: navigator.userAgent }, (line) => {
  show("← " + line);
  return window.tell(line);
});

window.ask = (line) => {
  show("→ " + line);
  void answer(line);
};
