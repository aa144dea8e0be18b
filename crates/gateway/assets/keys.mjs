// The keys page: copies a new key's secret.

document.addEventListener("click", async ({ target }) => {
  if (!target.matches("[data-copy]")) return;
  const field = target.parentElement.querySelector("input");
  field.select();
  await navigator.clipboard.writeText(field.value);
  target.textContent = target.dataset.copy;
});
