// The configuration of an official suite that runs in a browser, with what a machine
// decides: where its browser is, and that packages lie outside of the suite's folder.
// It is put beside the suite's own.

import { playwright } from "@vitest/browser-playwright";
import { mergeConfig } from "vite";
import theirs from "./vite.config.ts";

const config = mergeConfig(theirs, { server: { fs: { strict: false } } });
config.test.browser.provider = playwright({
  launchOptions: { executablePath: process.env.CHROMIUM },
});

export default config;
