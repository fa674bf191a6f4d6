// What scrolls can be reached by keys, and no two landmarks share a name.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code").forEach((one) => { one.tabIndex = 0; });
  document.querySelectorAll("nav.md-nav[data-md-level], nav.md-code__nav").forEach((one, place) => {
    const label = document.getElementById(one.getAttribute("aria-labelledby") || "");
    const said = one.classList.contains("md-code__nav") ? "Code" : label ? label.textContent.trim() : "Pages";
    one.removeAttribute("aria-labelledby");
    one.setAttribute("aria-label", `${said} (${place + 1})`);
  });
});
