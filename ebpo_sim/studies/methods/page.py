"""The study as one page: leaderboards with controls for regime, currency and the ratio of sampling to training.

The page computes what `outcomes.board` computes, from the rollouts and rows of every run to the far target, in modelled
seconds of any ratio: mean over worlds of the log ratios by seed, Student's interval, Holm over the methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy.special import stdtrit

from ebpo_sim import html, report
from ebpo_sim.labels import REFERENCE
from ebpo_sim.plots import Figure
from ebpo_sim.studies.methods.arms import kind
from ebpo_sim.studies.methods.cells import Cell, Settings
from ebpo_sim.studies.methods.outcomes import Runs
from ebpo_sim.studies.methods.text import Place, effect, places, ranked, select, title
from ebpo_sim.studies.prediction.cells import reached
from ebpo_sim.studies.prediction.outcomes import MARGIN

Rows = list[dict[str, Any]]
CAPTIONS = {
    "leaderboard.png": "Rollouts to the far target, ratio to GRPO with its 95 % interval, by regime; filled: a "
    "direction after correction.",
    "parts.png": "Shares of variance of log rollouts over the parts of a method, with 95 % intervals over seeds.",
    "levels.png": "What each level of a part does to the rollouts, against GRPO's level, in the balanced design.",
}
BODY = """<p><label>regime <select id="place"></select></label>
<label>currency <select id="currency"><option value="rollouts">rollouts</option>
<option value="rows">trained rows</option><option value="seconds">modelled seconds</option></select></label></p>
<p><label for="ratio">sampling : training, a rollout to a trained row, <output id="shown">1:1</output></label><br>
<input type="range" id="ratio" min="-4" max="4" step="0.25" value="0" aria-label="sampling : training, powers of 2"></p>
<p class="note" id="about"></p>
<div class="scroll"><table id="board"><thead><tr><th></th><th>method</th><th>ratio to GRPO</th>
<th>1/4 to 4</th><th>95 %</th><th>after correction</th><th>runs</th></tr></thead><tbody></tbody></table></div>"""
SCRIPT = r"""
const by=id=>document.getElementById(id),place=by('place'),currency=by('currency'),ratio=by('ratio');
DATA.places.forEach((p,i)=>{const o=document.createElement('option');o.value=i;o.textContent=p.title;place.append(o)});
const mean=v=>v.reduce((a,b)=>a+b,0)/v.length;
const gamma=n=>n<=0.5?Math.sqrt(Math.PI):n<=1?1:(n-1)*gamma(n-1);
function p_of(t,df){ // two-sided: the density in x = sqrt(df) tan u, Simpson from |t| to infinity
 const c=gamma((df+1)/2)/gamma(df/2)/Math.sqrt(Math.PI),a=Math.atan(Math.abs(t)/Math.sqrt(df)),b=Math.PI/2,n=400;
 let s=0;for(let i=0;i<=n;i++)s+=(i%n?2+2*(i%2):1)*Math.pow(Math.max(0,Math.cos(a+(b-a)*i/n)),df-1);
 return Math.min(1,2*c*s*(b-a)/n/3)}
function board(p,of){ // of: (rollouts, rows) -> cost
 const rows=p.methods.map(m=>{
  const costs=m.runs.map(w=>w.map(r=>r&&of(r))),base=p.grpo.map(w=>w.map(r=>r&&of(r)));
  const met=costs.flat().filter(x=>x).length,row={name:m.name,kind:m.kind,met,of:costs.flat().length};
  if(met<row.of||base.flat().some(x=>!x))return row;
  const y=base[0].map((_,s)=>mean(base.map((w,i)=>Math.log(costs[i][s]/w[s])))),n=y.length,v=mean(y);
  const se=Math.sqrt(y.reduce((a,x)=>a+(x-v)**2,0)/(n-1)/n);
  return {...row,v,low:v-p.t*se,high:v+p.t*se,p:se>0?p_of(v/se,n-1):+(v===0)}});
 const ranked=rows.filter(r=>'v' in r).sort((a,b)=>a.p-b.p);let run=0;
 ranked.forEach((r,i)=>{run=Math.max(run,Math.min(1,(rows.length-i)*r.p));
  r.word=r.low<=0&&r.high>=0?(p.noise<1||r.high-r.v>DATA.margin?'no resolving power':'no difference seen'):
   run>=0.05?'before correction only':
   Math.max(-r.low,r.high)<=DATA.margin?(p.noise<1?'no resolving power':'negligible'):r.v<0?'fewer':'more'});
 const all=[...rows,{name:DATA.reference,v:0,low:0,high:0}];
 return all.sort((a,b)=>('v' in b)-('v' in a)||('v' in a?a.v-b.v:b.met-a.met))}
function show(){
 const p=DATA.places[+place.value],x=Math.pow(2,+ratio.value),name=x>=1?+x.toFixed(2)+':1':'1:'+ +(1/x).toFixed(2);
 by('shown').textContent=name;ratio.disabled=currency.value!=='seconds';
 const of={rollouts:r=>r[0],rows:r=>r[1],seconds:r=>x*r[0]+r[1]}[currency.value],rows=board(p,of);
 by('about').textContent=p.about;
 const body=by('board').tBodies[0];body.replaceChildren();
 const edge=Math.log(4),at=v=>60+55*Math.max(-1,Math.min(1,v/edge)),f=v=>Math.exp(v).toFixed(2);
 rows.forEach((r,i)=>{const line=body.insertRow(),cell=t=>{line.insertCell().textContent=t},known='v' in r;
  cell(i+1);cell(r.name);cell(known?f(r.v):'-');
  const sure=r.word==='fewer'||r.word==='more';
  line.insertCell().innerHTML='<svg width="120" height="14" stroke="currentColor"><path d="M60 0V14" opacity=".4"/>'+
   (known?`<path d="M${at(r.low)} 7H${at(r.high)}"/><circle cx="${at(r.v)}" cy="7" r="3.5" fill="${
   sure?'currentColor':'none'}"/>`:'')+'</svg>';
  cell(known&&r.of?f(r.low)+' to '+f(r.high):'');cell(r.word||'');
  line.lastChild.className=r.word==='fewer'?'good':r.word==='more'?'bad':'';cell(r.of?r.met+' of '+r.of:'')})}
const asked=new URLSearchParams(location.search);
if(asked.has('place'))place.value=asked.get('place');
if(asked.has('currency'))currency.value=asked.get('currency');
if(asked.has('ratio'))ratio.value=asked.get('ratio');
for(const x of [place,currency,ratio])x.addEventListener('input',show);show();
"""


def page(
    settings: Settings, runs: Runs, tables: Mapping[str, Rows], sentence: str, figures: Mapping[str, Figure]
) -> bytes:
    """The whole page. ?place=2&currency=seconds&ratio=-2 opens it with these controls; ratio is a power of 2."""
    told = tables["leaderboard"]
    listed = [_place(settings, runs, told, place) for place in places(told)]
    parts: list[html.Part] = [
        html.Live("Leaderboard", BODY, SCRIPT, {"places": listed, "margin": MARGIN, "reference": REFERENCE})
    ]
    for name, figure in figures.items():
        parts.append(html.Picture(CAPTIONS[name].split(",")[0], report.png(figure), CAPTIONS[name]))
    if tables["shares"]:
        rows = [
            (r["regime"], r["arms"], r["part"], f"{r['share']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}")
            for r in tables["shares"]
        ]
        note = "1 is all of the variance of log rollouts to the far target; the rest is interactions and noise."
        parts.append(html.Table("Which parts matter", ("regime", "arms", "part", "share", "95 %"), rows, note))
    ends = [
        (r["regime"], f"{r['minibatches']}", f"{r['mismatch']:g}", r["estimator"], r["quantity"], effect(r),
         r["verdict"])
        for r in told if r["target"] == "" and r["estimator"] != REFERENCE
    ]  # fmt: skip
    headers = ("regime", "mini-batches", "mismatch", "method", "quantity", "to GRPO, 95 %", "after correction")
    parts.append(html.Table("Where curves end, and how soon they rise", headers, ends))
    return html.page("Published methods side by side", sentence, parts)


def _place(settings: Settings, runs: Runs, told: Rows, place: Place) -> dict[str, Any]:
    """The data of one leaderboard: rollouts and rows to the far target by method, world and seed."""
    cells = [c for _, c, _ in runs.found if (c.regime, c.minibatches, c.mismatch) == place]
    first = select(told, place)[0]
    cells = list(dict.fromkeys(cells))[: first["worlds"]]
    noise = f", mismatch {place[2]:g}" if place[2] else ""
    arms = [r["estimator"] for r in ranked(told, place) if r["estimator"] != REFERENCE]
    return {
        "title": f"{place[0]}, {place[1]} mini-batch{'es' * (place[1] > 1)}{noise}", "about": title(told, place),
        "noise": first["noise_ratio"], "t": float(stdtrit(settings.seeds - 1, 0.975)),
        "grpo": _spent(runs, REFERENCE, cells),
        "methods": [{"name": a, "kind": kind(a), "runs": _spent(runs, a, cells)} for a in arms],
    }  # fmt: skip


def _spent(runs: Runs, arm: str, cells: list[Cell]) -> list[list[list[float] | None]]:
    lines = []
    for cell in cells:
        met = [reached(curve, cell.far) for _, curve in sorted(runs.found[arm, cell, "own"].curves.items())]
        lines.append([[x["rollouts"], x["rows"]] if x and not math.isnan(x["rows"]) else None for x in met])
    return lines
