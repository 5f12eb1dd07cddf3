// Keys, the marked row of the table of samples, the fold of details, and the address, which follows what is shown
// (links.py reads it).
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

  // --- the address ---
  const MOST = 5500;  // guard.py takes 6,000 bytes
  const USUAL = { scope: 'this round', preset: 'all', kind: 'any', finding: 'any', text: '' };
  const OF_A_RUN = ['rounds', 'samples', 'rewards'];
  const began = new URLSearchParams(location.search);
  let question = null;  // the one that was asked, as parts of an address
  let ready = false;  // until the page is filled the address is what it is filled from

  const go = (place, push) => {
    const parts = new URLSearchParams();
    for (const [name, value] of Object.entries(place)) {
      if (value !== null && value !== undefined && value !== '') parts.set(name, value);
    }
    const address = '?' + parts;
    if (address.length > MOST) return false;
    if (address !== location.search) history[push ? 'pushState' : 'replaceState'](null, '', address);
    return true;
  };
  const filters = (scope, preset, kind, finding, text) => {
    const given = { scope, preset, kind, finding, text };
    return Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== USUAL[name]));
  };
  addEventListener('popstate', () => location.reload());

  window.swPlace = values => {
    const [tab, run, round, , scope, preset, kind, finding, text, picked] = values;
    if (!ready) return values;
    if (tab === 'live') go(question || { tab }, true);
    else if (!OF_A_RUN.includes(tab)) go({ tab }, true);
    else if (run) {
      const place = { tab, run, round };
      go(tab === 'samples' ? { ...place, ...filters(scope, preset, kind, finding, text), sample: picked } : place, true);
    }
    return values;
  };

  window.swFilters = values => {
    const [run, round, scope, preset, kind, finding, text] = values;
    if (ready && shown(document.querySelector('#sw-samples'))) {
      go({ tab: 'samples', run, round, ...filters(scope, preset, kind, finding, text) }, false);
    }
  };

  window.swSample = link => {
    if (!link) return;
    const chosen = new URLSearchParams(link);
    const now = Object.fromEntries(new URLSearchParams(location.search));
    const kept = Object.fromEntries(Object.keys(USUAL).filter(name => name in now).map(name => [name, now[name]]));
    go({ tab: 'samples', ...kept, ...Object.fromEntries(chosen) }, false);
  };

  // --- a question ---
  window.swAsked = (given, first) => {
    const values = [...given];
    const { gold: came, question: withIt } = filled.gold === undefined ? first : filled;
    if (values[4] === came && values[0] !== withIt) values[4] = '';
    // Shown at once, for a question may have to wait for others; the server's own words follow.
    const status = document.querySelector('#sw-status .sw-live');
    if (status) status.textContent = 'Waiting for its turn ...';
    const [text, a, b, image, gold, verifier, temperature, tokens, reflections, view, seed, faithful] = values;
    question = image ? null : {
      question: text, a, b: b === 'no second model' ? '' : b, gold, verifier: gold ? verifier : '', temperature, tokens,
      reflections, view, seed, faithful: faithful ? '1' : '',
    };
    if (!go(question || { tab: 'live' }, true)) question = null;
    const answers = document.querySelector('#sw-answers');
    if (answers && answers.getBoundingClientRect().top > innerHeight * 0.5) {
      document.querySelector('#sw-status').scrollIntoView({ behavior: 'smooth', block: 'start' });
    }
    return values;
  };

  window.swCopyLink = async () => {
    const status = document.querySelector('#sw-status .sw-live');
    const say = text => { if (status) status.textContent = text; };
    if (!question) return say('Ask first: the link is to a question that was asked, without an image, and not too long.');
    try {
      await navigator.clipboard.writeText(location.href);
      say('The link is copied: it asks the same question in the same way.');
    } catch {
      say('The browser does not let the page copy: take the address from the bar above.');
    }
  };

  // A gold answer that came with an example goes when the question is written anew; one that was typed stays.
  const filled = { gold: undefined, question: undefined };
  window.swFilled = (gold, question) => { Object.assign(filled, { gold, question }); };
  window.swGoldOf = gold => (filled.gold === undefined || gold === filled.gold ? '' : gold);

  // `first`: what a page begins with; by now somebody may have written over it.
  window.swOpened = (gold, question, first) => {
    const linked = began.has('question');
    Object.assign(filled, linked ? { gold, question } : first);
    // Behind the events that filling sets off.
    setTimeout(() => {
      ready = true;
      if (linked) document.querySelector('#sw-ask')?.click();
    }, 300);
  };

  // Enter asks, Shift+Enter begins a new line; Gradio's box has it the other way round, and listens to `keypress`.
  const entered = event => {
    if (event.key !== 'Enter' || event.isComposing || !event.target.closest('#sw-question textarea')) return;
    event.stopPropagation();
    if (event.shiftKey) return;
    event.preventDefault();
    if (event.type === 'keydown') document.querySelector('#sw-ask')?.click();
  };
  for (const name of ['keydown', 'keypress']) document.addEventListener(name, entered, true);

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

  // --- the fold of the details, open or closed as it was left ---
  const FOLD = 'sw-fold';
  const remembered = () => { try { return localStorage.getItem(FOLD) === 'open'; } catch { return false; } };
  const head = () => document.querySelector('.sw-fold .label-wrap');
  document.addEventListener('click', event => {
    if (!event.isTrusted || !event.target.closest('.sw-fold .label-wrap')) return;
    setTimeout(() => {
      try { localStorage.setItem(FOLD, head().classList.contains('open') ? 'open' : 'closed'); } catch { /* not kept */ }
    }, 50);
  });
  const unfold = new MutationObserver(() => {
    if (!shown(head())) return;
    unfold.disconnect();
    if (remembered() && !head().classList.contains('open')) head().click();
  });
  unfold.observe(document.documentElement, { childList: true, subtree: true, attributes: true });
})();
