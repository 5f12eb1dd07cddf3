// Keys and the marked row of the table of samples, and the switch between light and dark.
(() => {
  const rows = () => [...document.querySelectorAll('#sw-samples tr[data-id]')];
  const shown = element => element && element.offsetParent !== null;

  window.swSelect = row => {
    for (const other of rows()) {
      other.classList.toggle('sw-selected', other === row);
      other.removeAttribute('aria-current');
    }
    row.setAttribute('aria-current', 'true');
    row.scrollIntoView({ block: 'nearest' });
  };

  // A page that was turned by a key begins at its first or last row.
  let waiting = null;
  const turn = (button, end) => {
    const before = rows()[0]?.dataset.id;
    document.querySelector(button)?.click();
    clearInterval(waiting);
    let left = 50;
    waiting = setInterval(() => {
      const now = rows();
      if (now.length && now[0].dataset.id !== before) {
        clearInterval(waiting);
        now[end < 0 ? now.length - 1 : 0].click();
      } else if (--left === 0) clearInterval(waiting);
    }, 100);
  };

  // Shown at once, for a question may have to wait for others; the server's own words follow.
  window.swWaiting = () => {
    const status = document.querySelector('#sw-status .sw-live');
    if (status) status.textContent = 'Waiting for its turn ...';
  };

  const move = by => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex(row => row.classList.contains('sw-selected'));
    const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by;
    if (next < 0) turn('#sw-page-back', -1);
    else if (next >= all.length) turn('#sw-page-forth', 1);
    else all[next].click();
  };

  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, textarea, select, [contenteditable=true]')) return;
    if (!shown(document.querySelector('#sw-samples'))) return;
    if (event.key === 'j') move(1);
    else if (event.key === 'k') move(-1);
    else if (event.key === 'n') document.querySelector('#sw-disagree')?.click();
    else return;
    event.preventDefault();
  });
})();
