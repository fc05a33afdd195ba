"""`llm/train.py --backend trl`: the same problems in the same order, the same verdicts and estimator; refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import needs

needs.require("trl")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from ebpo_sim import InputError, group_rewards, make  # noqa: E402
from ebpo_sim.estimators import dump_state  # noqa: E402
from llm import backend_trl, engines, evaluate, train, trl_checkpoints  # noqa: E402
from llm.problems import task  # noqa: E402
from llm.run import curriculum_of, prepare, rates_from  # noqa: E402
from llm.settings import PRESETS, Settings  # noqa: E402
from llm.tasks import load_problems, make_verifier  # noqa: E402
from llm_toys import save_model  # noqa: E402
from trl_toy import NEWS  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(text) for text in NEWS]
TINY = Settings(
    prompts=8, steps=4, lr=3e-3, warmup=1, topics="count,mod", max_level=3, per_cell=24, eval_per_cell=4,
    checkpoint_every=2, sft_steps=60, sft_batch=64, hidden=16, layers=1, heads=2, kv_heads=1, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm-started tiny model, trained once."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache")


class Seen(backend_trl.Reward):
    """The reward function that remembers what it was asked."""

    calls: list[tuple[list[str], list[float]]]

    def __call__(self, completions, completion_ids, answer, id, **rest):
        found = super().__call__(completions, completion_ids, answer, id, **rest)
        Seen.calls.append((list(id), found))
        return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[float]]]:
    """(prompt ids, rewards) of every generation batch of a run."""
    Seen.calls = []
    monkeypatch.setattr(backend_trl, "Reward", Seen)
    return Seen.calls


@pytest.mark.parametrize("change", [{}, {"mini_batch": 2, "updates": 2, "order": "topic", "kl_coef": 0.01}], ids=str)
def test_batches_and_state_are_those_of_the_curriculum_and_estimator(
    change: dict, cache: Path, tmp_path: Path, calls: list
) -> None:
    """Guards "the same run": the curriculum's prompts step by step, and a state that a fresh object learns."""
    settings = replace(TINY, estimator="ebpo_debiased:memory=0.9", **change)
    backend_trl.train(settings, tmp_path, cache)
    problems = task(settings).train
    curriculum, fresh = curriculum_of(settings, problems), make(settings.estimator)
    state = fresh.init()
    assert len(calls) == settings.steps
    for step, (ids, rewards) in enumerate(calls):
        assert ids == [p.id for p in curriculum.batch(step) for _ in range(4)]
        groups = group_rewards(
            torch.tensor(rewards).view(8, 4), clusters=[p.cell.topic for p in curriculum.batch(step)]
        )
        state = fresh.update(state, groups)
    assert 0 < sum(sum(rewards) for _, rewards in calls) < settings.steps * 32
    each = 4 * 2 if change else 1
    last = tmp_path / f"checkpoint-{settings.steps * each}"
    assert (last / "ebpo_state.json").read_text() == dump_state(fresh, state)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum("ebpo/shrinkage" in row for row in rows) == settings.steps


def test_a_resumed_run_is_the_whole_run(cache: Path, tmp_path: Path) -> None:
    """Guards --resume with --backend trl: weights and state after a stop at half are those of the uninterrupted run."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        backend_trl.train(TINY, out, cache)
    kept = torch.load(cut / "checkpoint-4/optimizer.pt", weights_only=True)
    for file in (cut / "checkpoint-4").iterdir():
        file.unlink()
    (cut / "checkpoint-4").rmdir()
    with pytest.raises(InputError, match=r"--lr is 0.5, the checkpoint was written with 0.003"):
        backend_trl.train(replace(TINY, lr=0.5), cut, cache, resume=True)
    backend_trl.train(TINY, cut, cache, resume=True)
    for name in ("ebpo_state.json", "model.safetensors"):
        assert (cut / "checkpoint-4" / name).read_bytes() == (whole / "checkpoint-4" / name).read_bytes()
    again = torch.load(cut / "checkpoint-4/optimizer.pt", weights_only=True)
    assert all(torch.equal(again["state"][i]["exp_avg"], moments["exp_avg"]) for i, moments in kept["state"].items())
    argv = [
        str(whole / "model"),
        "--dataset",
        "generated",
        "--per-cell",
        "4",
        "--samples",
        "2",
        "--k",
        "1",
        "--max-new",
    ]
    evaluate.main([*argv, "9", "--out", str(tmp_path / "scores")])
    assert (tmp_path / "scores/rollouts.csv").exists()


def test_only_its_own_last_whole_checkpoint_is_resumed(
    cache: Path, tmp_path: Path, calls: list, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards --resume: another run's folders, half-written ones and those that lost a file are never gone on from."""
    out = tmp_path / "run"
    backend_trl.train(TINY, out, cache)
    record = (out / "model/ebpo_split.json").read_bytes()
    for folder in ("checkpoint-2", "checkpoint-4"):
        assert json.loads((out / folder / "settings.json").read_text()) == TINY.as_dict()
        assert (out / folder / "ebpo_split.json").read_bytes() == record
    other = replace(TINY, seed=4, lr=1e-3)
    for again in (TINY, other):
        with pytest.raises(InputError, match="holds checkpoints of an earlier run"):
            backend_trl.train(again, out, cache)
    (out / "settings.json").write_text(json.dumps(other.as_dict()))  # what a killed run of other settings left
    with pytest.raises(InputError, match=r"--lr is 0.001, the checkpoint was written with 0.003"):
        backend_trl.train(other, out, cache, resume=True)
    (out / "checkpoint-4/optimizer.pt").rename(tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="lost its optimizer"):
        backend_trl.train(TINY, out, cache, resume=True)
    (out / "checkpoint-4/optimizer.pt").write_bytes((tmp_path / "optimizer.pt").read_bytes()[:-1])
    with pytest.raises(InputError, match="it was written with"):
        backend_trl.train(TINY, out, cache, resume=True)
    (out / "checkpoint-4/whole.json").unlink()  # as a kill in the middle of writing leaves it
    (out / "checkpoint-4/trainer_state.json").unlink()
    calls.clear()
    backend_trl.train(replace(TINY, eval_every=7, show_every=0), out, cache, resume=True)
    assert len(calls) == 2 and "checkpoint-4 was not written to its end, skipped" in capsys.readouterr().out
    for folder in out.glob("checkpoint-*"):
        (folder / "whole.json").unlink()
    with pytest.raises(InputError, match="that is whole"):
        backend_trl.train(TINY, out, cache, resume=True)


def test_backends_share_their_warm_start(cache: Path, tmp_path: Path) -> None:
    """Guards one base for both loops: after the own loop's run the other makes no second warm start."""
    settings, own = replace(TINY, sft_seed=5, steps=1), tmp_path / "cache"
    train.train(settings, tmp_path / "own", own)
    torch.set_num_threads(2)
    backend_trl.train(settings, tmp_path / "trl", own)
    assert torch.get_num_threads() == 1 and len(list(own.iterdir())) == 1


def test_rewards_are_those_of_the_own_loop(cache: Path) -> None:
    """Guards verdicts: the function given to TRL scores answers as `llm/train.py` does, run-on ones included."""
    problems, held = task(TINY)
    run = prepare(TINY, cache, problems, held)
    run.engine.max_new = 2  # so that some answers do not end
    mine = engines.answer(run.engine, run.verifier, problems, 4, 0)
    rolled = mine.rolled
    ids = [tokens[:n] for tokens, n in zip(rolled.tokens_NT.tolist(), rolled.mask_NT.sum(dim=1).tolist(), strict=True)]
    wrapped = run.engine.tokenizer.wrapped
    texts = [wrapped.decode(row, skip_special_tokens=True) for row in ids]
    each = [p for p in problems for _ in range(4)]
    found = backend_trl.Reward(make_verifier("exact"), run.engine.tokenizer.eos_ids)(
        completions=texts,
        completion_ids=ids,
        answer=[p.answer for p in each],
        id=[p.id for p in each],
        topic=[p.cell.topic for p in each],
        prompts=[],
    )
    assert found == mine.rewards and None in mine.texts and sum(found) > 0
    chat = [[{"role": "assistant", "content": text}] for text in texts]
    again = backend_trl.Reward(make_verifier("exact"), run.engine.tokenizer.eos_ids)(
        completions=chat,
        completion_ids=ids,
        answer=[p.answer for p in each],
        id=[p.id for p in each],
        topic=[p.cell.topic for p in each],
    )
    assert again == found


def test_a_chat_model_on_word_problems(cache: Path, tmp_path: Path, calls: list) -> None:
    """Guards the real path: a model folder with a chat template, a data set, math-verify, LoRA where peft is."""
    folder = save_model(tmp_path / "model", chat=True)
    settings = replace(
        TINY, model=str(folder), dataset="sample", max_new=12, steps=2, prompts=4, verifier_seconds=30.0,
        lora_rank=2 if "peft" in sys.modules or _has_peft() else 0,
    )  # fmt: skip
    backend_trl.train(settings, tmp_path / "run", cache)
    assert len(calls) == 2 and (tmp_path / "run/model").is_dir()
    rows = backend_trl.rows_of(settings, load_problems("sample"), chat=True)
    assert rows[0]["prompt"][0]["role"] == "user" and {"answer", "topic", "id"} <= set(rows[0])


def _has_peft() -> bool:
    try:
        import peft  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_papers_batches_on_eight_processes(tmp_path: Path) -> None:
    """Guards the mapping of names: 2048 answers a batch, four optimizer steps on it, whatever the machines."""
    settings = Settings(**PRESETS["paper"])
    named = backend_trl.arguments(settings, tmp_path, 8192, 8, named=True)
    assert not named.keys() & {"beta", "epsilon", "epsilon_high", "delta"}
    found = backend_trl.arguments(settings, tmp_path, 8192, 8)
    per_step = found["per_device_train_batch_size"] * 8
    assert per_step * found["gradient_accumulation_steps"] == 128 * 4
    assert per_step * found["steps_per_generation"] == 512 * 4
    assert (found["max_steps"], found["save_steps"]) == (4 * 1000, 4 * settings.checkpoint_every)
    assert (found["learning_rate"], found["beta"], found["loss_type"]) == (1e-6, 1e-3, "dapo")


def test_every_name_reaches_trl(tmp_path: Path) -> None:
    """Guards the mapping of names: settings that all differ from each other and from TRL's defaults."""
    settings = replace(
        TINY, prompts=8, mini_batch=4, updates=3, clip_low=0.11, clip_high=0.33, clip_dual=3.0, kl_coef=0.07, lr=0.05,
        warmup=5, weight_decay=0.02, grad_clip=0.9, temperature=0.8, aggregation="sequence_mean", dtype="bf16",
        gradient_checkpointing=True, max_new=7,
    )  # fmt: skip
    found = backend_trl.arguments(settings, tmp_path, 7, 2)
    assert found == {
        "output_dir": str(tmp_path), "num_generations": 4, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1, "steps_per_generation": 2, "num_iterations": 3, "max_steps": 4 * 6,
        "max_completion_length": 7, "temperature": 0.8, "learning_rate": 0.05, "lr_scheduler_type": "linear",
        "warmup_steps": 30, "adam_beta2": 0.99, "weight_decay": 0.02, "max_grad_norm": 0.9, "beta": 0.07,
        "epsilon": 0.11, "epsilon_high": 0.33, "delta": 3.0, "loss_type": "grpo", "disable_dropout": True,
        "use_bias_correction_kl": False, "shuffle_dataset": False, "remove_unused_columns": False, "seed": 3,
        "use_cpu": True, "bf16": True, "gradient_checkpointing": True, "use_vllm": False, "logging_steps": 1,
        "save_steps": 12, "report_to": "none",
    }  # fmt: skip


def weights(folder: Path) -> torch.Tensor:
    """All weights of a model that a run has written."""
    loaded = load_file(folder / "model" / "model.safetensors")
    return torch.cat([loaded[name].flatten() for name in sorted(loaded)])


def test_the_method_reaches_trl(cache: Path, tmp_path: Path) -> None:
    """Guards --estimator "... + ...": the settings' clip and divergence spelt out train to the same weights; named,
    the settings' own have no effect; another objective trains another model, and kl kinds that TRL lacks work."""
    base = replace(TINY, estimator="grpo", mini_batch=4, updates=2, clip_low=0.02, clip_high=0.03, kl_coef=0.05)
    texts = {
        "own": "grpo",
        "spelt": "grpo + clip:low=0.02,high=0.03 + kl:coef=0.05",
        "cispo": "rloo + cispo:high=0.2",
        "k2": "grpo + clip:low=0.02,high=0.03 + kl:coef=0.05,kind=k2",
    }
    found = {}
    for name, text in texts.items():
        kind = {"kl_kind": "k2"} if name != "own" else {}
        backend_trl.train(replace(base, estimator=text, steps=2, checkpoint_every=2, **kind), tmp_path / name, cache)
        found[name] = weights(tmp_path / name)
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert any("ebpo/clipped" in row for row in rows) == (name != "own")
    torch.testing.assert_close(found["spelt"], found["own"], rtol=0, atol=1e-5)
    for name in ("cispo", "k2"):
        assert (found[name] - found["own"]).abs().max() > 1e-4


def test_an_order_by_measured_pass_rates(tmp_path: Path) -> None:
    """Guards --ranking: easiest first by the file's mean rewards; files that do not fit are refused."""
    problems = load_problems("sample")[:3]
    lines = [
        "prompt_id,reward",
        *(f"{p.id},{r}" for p, rs in zip(problems, ([0, 1], [1, 1], [0, 0]), strict=True) for r in rs),
    ]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    settings = replace(TINY, ranking=str(tmp_path / "r.csv"), order="easy_to_hard", prompts=1)
    rates = rates_from(settings, problems)
    assert rates == [0.5, 1, 0]
    curriculum = curriculum_of(replace(settings, steps=3), problems, rates)
    assert [problems.index(*curriculum.batch(step)) for step in range(3)] == [1, 0, 2]
    with pytest.raises(InputError, match=r"no rollout of 1 problems"):
        rates_from(settings, load_problems("sample")[:4])
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no prompt_id and reward"):
        rates_from(settings, problems)


def test_what_trl_cannot_do_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards refusals: batches that do not split, an order that has to be measured, no TRL."""
    with pytest.raises(InputError, match=r"must be a multiple of --micro-rows 5"):
        backend_trl.train(replace(TINY, micro_rows=5), tmp_path, cache)
    for change, said in (
        ({"temperature": 0.0}, "positive --temperature"),
        ({"group_size": 1}, "--group-size of at least 2"),
        ({"device": "cuda:77"}, "is not there"),
        ({"clip_low": 2.0}, "clip low"),
        ({"kl_coef": 0.1, "kl_kind": "k2"}, r"--kl-kind k2 is not TRL's.*'ebpo \+ clip \+ kl:kind=k2'"),
        ({"estimator": "grpo + clip + entropy"}, "entropy needs entropy, which trl"),
        ({"model": str(tmp_path), "engine": "vllm"}, "pip install vllm"),
    ):
        with pytest.raises(InputError, match=said):
            backend_trl.train(replace(TINY, **change), tmp_path / "out", cache)
    with pytest.raises(InputError, match=r"--resume finds no checkpoint"):
        backend_trl.train(TINY, tmp_path / "none", cache, resume=True)
    with pytest.raises(InputError, match=r"needs --ranking"):
        backend_trl.train(replace(TINY, order="easy_to_hard"), tmp_path, cache)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(InputError, match=r"pip install 'ebpo-sim\[trl\]'"):
        backend_trl.train(TINY, tmp_path, cache)


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_the_shipped_launch_files_are_read_by_accelerate(name: str) -> None:
    """Guards llm/configs: accelerate knows every key; a wrong one is refused by its reader."""
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(Path(backend_trl.__file__).parent / "configs" / f"{name}.yaml"))
    assert found.num_processes == 8 and found.mixed_precision == "bf16"


def test_validation_and_the_best_model(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards --keep-best here: validated when asked, rewards of the held-out problems, and the best model readable."""
    settings = replace(TINY, eval_every=2, eval_samples=2, steps=4, lr=1e-9)
    backend_trl.train(settings, tmp_path, cache, keep_best=True)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [(row["step"], row["eval_reward"]) for row in rows if "eval_reward" in row]
    assert [step for step, _ in told] == [2, 4] and all(0 <= reward <= 1 for _, reward in told)
    said = capsys.readouterr().out
    assert "no effect" not in said and said.count("mean validation reward") == 1 + (told[1][1] > told[0][1])
    assert (tmp_path / "best/ebpo_split.json").read_bytes() == (tmp_path / "model/ebpo_split.json").read_bytes()
    argv = [str(tmp_path / "best"), "--dataset", "generated", "--per-cell", "2", "--samples", "1", "--max-new", "9"]
    evaluate.main([*argv, "--out", str(tmp_path / "scores")])


def test_the_best_of_equals_is_the_first() -> None:
    """Guards the callback, a resumed run included: it saves where the last reward is above all before it."""
    saved = []
    best = trl_checkpoints.Best(lambda: saved.append(len(history)))
    history: list[dict[str, float]] = []
    for reward in (0.2, 0.5, 0.5, 0.4, 0.6):
        history += [{"loss": 1.0}, {"eval_reward": reward}]
        best.on_evaluate(None, SimpleNamespace(log_history=history), None)
    assert saved == [2, 4, 10]


def test_filters(cache: Path, tmp_path: Path, calls: list) -> None:
    """Guards the filters here: rates come from --ranking, without it there is one line."""
    with pytest.raises(InputError, match="--filter-prompts with --backend trl needs --ranking"):
        backend_trl.train(replace(TINY, filter_prompts="0.1,0.9"), tmp_path, cache)
    problems = task(TINY).train
    lines = [f"{p.id},{int(i < 10)}" for i, p in enumerate(problems)]
    (tmp_path / "rates.csv").write_text("prompt_id,reward\n" + "\n".join(lines))
    settings = replace(TINY, filter_prompts="0.5,1", ranking=str(tmp_path / "rates.csv"), steps=1, max_prompt_tokens=9)
    backend_trl.train(settings, tmp_path / "run", cache)
    assert {name for ids, _ in calls for name in ids} <= {p.id for p in problems[:10]}
