// Before the page is drawn: the colours that were chosen, so that a dark room sees no white flash. No module,
// since those wait for the page.
try {
  const chosen = localStorage.getItem("sakuin:theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing shows the system's colours.
}
