const slides = [...document.querySelectorAll("section")];
addEventListener("keydown", event => {
  if (event.key === "n") return document.body.classList.toggle("notes");
  const by = {ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1}[event.key];
  if (!by) return;
  event.preventDefault();
  const tops = slides.map(s => Math.abs(s.getBoundingClientRect().top)), at = tops.indexOf(Math.min(...tops));
  slides[Math.min(Math.max(at + by, 0), slides.length - 1)].scrollIntoView();
});
