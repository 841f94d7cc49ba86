// Jupyter's widgets ask MathJax 2 to typeset their labels; these pages have MathJax 3.
window.addEventListener("load", () => {
  if (window.MathJax && MathJax.startup && !MathJax.Hub) {
    MathJax.Hub = {
      Queue: ([, , element]) =>
        MathJax.startup.promise.then(() => MathJax.typesetPromise([element])),
    };
  }
});
