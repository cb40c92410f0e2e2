// Runs before the first paint, so that a dark page never flashes white. Everything else is in portico.js.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const contrast = matchMedia("(prefers-contrast: more)");
  const sheet = document.currentScript.dataset.contrast;
  const stored = () => { try { return localStorage.getItem("portico-theme"); } catch { return null; } };
  const apply = () => {
    const choice = stored() || root.dataset.theme || "system"; // of this browser, of the person
    root.classList.toggle("pf-v6-theme-dark", choice === "dark" || (choice === "system" && dark.matches));
    root.classList.toggle("pf-v6-theme-high-contrast", contrast.matches);
    if (contrast.matches && sheet && !document.getElementById("contrast-sheet")) {
      const link = Object.assign(document.createElement("link"), { id: "contrast-sheet", rel: "stylesheet", href: sheet });
      document.head.append(link);
    }
    root.dataset.themeChoice = choice;
    document.dispatchEvent(new CustomEvent("portico:theme"));
  };
  root.classList.add("js");
  try { root.classList.toggle("sidebar-closed", localStorage.getItem("portico-sidebar") === "closed"); } catch { /* private window */ }
  dark.addEventListener("change", apply);
  contrast.addEventListener("change", apply);
  addEventListener("storage", apply);
  window.porticoTheme = (choice) => { try { localStorage.setItem("portico-theme", choice); } catch { /* private window */ } apply(); };
  apply();
})();
