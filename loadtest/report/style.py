"""The style sheet of the pages: light and dark, system fonts only."""

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6470;--line:#d9dee4;--paper:#fff;--band:#f1f4f7;--a:#0b62d6;
  --b:#d2540a;--c:#0a8a5b;--d:#c21f3a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4b0;--line:#333a42;--paper:#14171a;--band:#1e2328;
  --a:#6aa9ff;--b:#ff9a57;--c:#4fd09b;--d:#ff6b81}}
body{margin:0 auto;max-width:820px;padding:24px 20px 60px;font:15px/1.5 system-ui,sans-serif;color:var(--ink);
  background:var(--paper)}
h1{font-size:24px;margin:0 0 2px}
h2{font-size:17px;margin:34px 0 8px}
p{margin:4px 0 12px}
.quiet,.legend,figcaption .legend,th{color:var(--soft)}
.verdict{border-left:4px solid var(--c);background:var(--band);padding:8px 12px;margin:14px 0}
.verdict.bad{border-color:var(--d)}
.verdict.warn{border-color:var(--b)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:8px 0;display:block;overflow-x:auto}
td,th{padding:3px 14px 3px 0;text-align:right;font-weight:400;white-space:nowrap}
td:first-child,th:first-child{text-align:left}
tr+tr td{border-top:1px solid var(--line)}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.tile{background:var(--band);padding:8px 14px;border-radius:6px;min-width:92px}
.tile b{display:block;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
figure{margin:18px 0}
figcaption{font-weight:600;margin-bottom:4px;display:flex;flex-wrap:wrap;justify-content:space-between;gap:8px}
.legend{font-weight:400;font-size:13px}
.key{margin-left:14px}
.key::before{content:"";display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle;
  background:var(--k)}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg path{fill:none;stroke:var(--k);stroke-width:2;stroke-linejoin:round}
svg circle{fill:var(--k)}
.grid{stroke:var(--line)}
.band{fill:var(--band)}
svg .word{paint-order:stroke;stroke:var(--band);stroke-width:4px}
.bar{stroke:var(--k);stroke-width:5;opacity:.35}
.a{--k:var(--a)}
.b{--k:var(--b)}
.c{--k:var(--c)}
.d{--k:var(--d)}
.dash{stroke-dasharray:5 4}
code{background:var(--band);padding:1px 4px;border-radius:3px}
"""
