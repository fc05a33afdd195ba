"""Hugging Face models in llm/: loading, sampling, training, LoRA, exporting, evaluating, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch

from ebpo_sim import InputError
from llm import checkpoints, evaluate, hub, resume_point, rollouts, train
from llm.engines import HFEngine, precision
from llm.settings import PRESETS, Settings, parse
from llm.tasks import Cell, Problem, load_problems
from llm.tasks.tokenizer import TextTokenizer
from llm_toys import SPECIAL, byte_tokenizer, save_model

CPU = precision("cpu", "fp32")


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with grouped-query attention, saved as transformers saves one."""
    torch.set_num_threads(1)
    return save_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    """Eighty problems whose verifier is trivial, so that a random model is sometimes right."""
    lines = [json.dumps({"prompt": f"q{i}", "answer": "1", "topic": f"t{i % 2}", "level": 1}) for i in range(80)]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines))
    (tmp_path / "judge.py").write_text("def short(answer, gold):\n    return len(answer) % 2 == 0\n")
    return tmp_path / "problems.jsonl"


def settings_for(folder: Path, problem_file: Path, **change: object) -> Settings:
    base = Settings(
        model=str(folder), dataset=str(problem_file), verifier=f"{problem_file.parent / 'judge.py'}:short", prompts=4,
        steps=3, group_size=4, max_new=8, eval_samples=2, eval_limit=6, checkpoint_every=1, eval_every=3, lr=1e-3,
        instruction="?", show_every=2, verifier_seconds=30.0,
    )  # fmt: skip
    return replace(base, **change)


def test_sampler_and_training_forward_agree_on_problems(folder: Path) -> None:
    """Guards the generic path: real tokenizer, two end tokens, word problems of many lengths, grouped attention."""
    model, tokenizer = hub.load(str(folder), CPU)
    assert tokenizer.eos_ids == (1, 2) and not tokenizer.chat
    engine = HFEngine(model, tokenizer, 12, CPU)
    found = engine.sample(load_problems("sample")[:10], 3, 0)
    with torch.no_grad():
        trained = rollouts.log_probs(model, *found[:4])
    assert ((trained - found.log_prob_NT) * found.mask_NT).abs().max() < 1e-5
    ends = found.tokens_NT[torch.arange(30), found.mask_NT.sum(dim=1) - 1][found.finished_N]
    assert set(ends.tolist()) == {1, 2} and not found.finished_N.all()
    texts = rollouts.answers(found, tokenizer)
    assert not any(special in text for text in texts if text for special in SPECIAL)


def test_training_resumes_and_is_evaluated(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards the whole path: a data set, one's own verifier, a resumed run equal to the whole, an export, scores."""
    settings = settings_for(folder, problem_file)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    found = train.train(settings, whole, tmp_path / "cache", export=True)
    assert 0 < found["reward"]["first"][0] < 1 and {"all"} < set(found["validation_pass1"]) <= {"all", "t0", "t1"}
    kept = resume_point.content
    with pytest.MonkeyPatch.context() as patch:

        def stop_after_two(run, step, *rest):
            if step > 2:
                raise KeyboardInterrupt
            return kept(run, step, *rest)

        patch.setattr(resume_point, "content", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train.train(settings, cut, tmp_path / "cache")
    train.train(settings, cut, tmp_path / "cache", resume=True)
    a, b = (checkpoints.load(where / "checkpoint.pt") for where in (cut, whole))
    assert a["step"] == 3 and all(torch.equal(a["model"][name], b["model"][name]) for name in b["model"])
    assert (cut / "rollouts.csv").read_bytes() == (whole / "rollouts.csv").read_bytes()
    shown = [json.loads(line) for line in (whole / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in shown} == {2, 3} and {"prompt", "gold", "text", "reward"} <= set(shown[0])
    model, _ = hub.load(str(whole / "model"), CPU)  # what was exported is the trained policy
    assert all(torch.equal(value, b["model"][name]) for name, value in model.state_dict().items())
    argv = [str(whole / "checkpoint.pt"), "--samples", "3", "--k", "1,3", "--out", str(tmp_path / "scores")]
    evaluate.main([*argv, "--verifier", settings.verifier])
    with (tmp_path / "scores/rollouts.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (whole / "rollouts.csv").open() as file:
        train_prompts = {row["prompt_id"] for row in csv.DictReader(file)}
    assert rows and not {row["prompt_id"] for row in rows} & train_prompts  # held out of what it was trained on
    exported = ["--verifier", settings.verifier, "--dataset", str(problem_file), "--max-new", "8"]
    evaluate.main([str(whole / "model"), *exported, *argv[1:]])
    assert scored(tmp_path / "scores") and not scored(tmp_path / "scores") & train_prompts
    evaluate.main([str(whole / "model"), *exported, *argv[1:], "--split", "all"])
    assert len(scored(tmp_path / "scores")) == 80


@pytest.mark.filterwarnings("ignore:.*is_activation_checkpointing:FutureWarning")  # peft 0.21 asks transformers so
def test_adapters_train_and_the_base_stands_still(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards --lora-rank: only adapters change and are saved; the KL's reference is the base without them."""
    pytest.importorskip("peft")
    settings = settings_for(folder, problem_file, lora_rank=2, kl_coef=0.1, updates=2)
    train.train(settings, tmp_path / "run", tmp_path / "cache", export=True)
    saved = checkpoints.load(tmp_path / "run/checkpoint.pt")
    assert saved["model"] and all("lora_" in name for name in saved["model"]) and saved["reference"] is None
    assert any(value.abs().max() > 0 for name, value in saved["model"].items() if "lora_B" in name)
    before, _ = hub.load(str(folder), CPU)
    problems, held = train.task(settings)
    run = train.prepare(settings, tmp_path / "cache", problems, held)
    checkpoints.put_weights(run.model, saved["model"])
    frozen = {name: p for name, p in run.model.get_base_model().state_dict().items() if ".lora_" not in name}
    for name, value in before.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        assert torch.equal(value, frozen.get(f"{layer}.base_layer.{leaf}", frozen.get(name)))
    answers = run.engine.sample(problems[:2], 2, 0)
    rows = torch.arange(4)
    adapted = train.learner.fixed_log_probs(run, answers, rows)
    base = train.learner.fixed_log_probs(run, answers, rows, reference=True)
    with torch.no_grad():
        alone = rollouts.log_probs(before, *answers[:4]).masked_fill(~answers.mask_NT, 0.0)
    assert (base - alone).abs().max() < 1e-5 < (adapted - alone).abs().max()
    exported, _ = hub.load(str(tmp_path / "run/model"), CPU)  # adapters added: a model like any other
    with torch.no_grad():
        again = rollouts.log_probs(exported, *answers[:4]).masked_fill(~answers.mask_NT, 0.0)
    assert (again - adapted).abs().max() < 1e-5
    argv = ["--verifier", settings.verifier, "--dataset", settings.dataset, "--max-new", "8", "--samples", "1"]
    evaluate.main([str(tmp_path / "run/model"), *argv, "--limit", "2", "--out", str(tmp_path / "scores")])
    assert (tmp_path / "scores/scores.csv").exists()


def test_chat_templates(tmp_path: Path) -> None:
    """Guards --chat: auto wraps prompts where a template exists, a data set's own messages included."""
    folder = save_model(tmp_path, chat=True)
    _, tokenizer = hub.load(str(folder), CPU)
    plain = Problem("hi", "1", Cell("t", 1), "p")
    told = plain._replace(messages=(("system", "be brief"), ("user", "hi")))
    read = tokenizer.wrapped.decode
    assert read(tokenizer.prompt(plain)) == "<|user|>hi<|end|><|assistant|>"
    assert read(tokenizer.prompt(told)) == "<|system|>be brief<|end|><|user|>hi<|end|><|assistant|>"
    _, without = hub.load(str(folder), CPU, chat="no")
    assert read(without.prompt(told)) == "hi"


def test_dropout_is_switched_off(tmp_path: Path) -> None:
    """Guards one forward for sampling and training: a model saved with dropout has none here, even while training."""
    model, tokenizer = hub.load(str(save_model(tmp_path, dropout=0.5)), CPU)
    ids = torch.tensor([tokenizer.prompt(Problem("hello", "1", Cell("t", 1), "p"))])
    with torch.no_grad():
        assert torch.equal(model.train()(ids).logits, model.train()(ids).logits)


def test_bad_models_and_prompts_are_refused(folder: Path, tmp_path: Path) -> None:
    """Guards refusals: a folder without tokenizer or model, a foreign tokenizer, long and unknown prompts."""
    with pytest.raises(InputError, match=r"--model .* cannot be read"):
        hub.load(str(tmp_path / "nothing"), CPU)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        hub.load(str(bare), CPU)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        hub.load(str(damaged), CPU)
    with pytest.raises(InputError, match=r"--chat yes needs"):
        hub.load(str(folder), CPU, chat="yes")
    problem = Problem("12345", "1", Cell("t", 1), "row 7")
    with pytest.raises(InputError, match=r"'row 7' has 5 tokens, --max-prompt is 4"):
        hub.load(str(folder), CPU, max_prompt=4)[1].prompt(problem)
    with pytest.raises(InputError, match="does not belong to it"):
        TextTokenizer(byte_tokenizer(), [1], 20, chat=False).prompt(problem)
    with pytest.raises(InputError, match="no end token"):
        TextTokenizer(byte_tokenizer(), [], 20, chat=False)
    with pytest.raises(InputError, match="gives no token"):
        TextTokenizer(byte_tokenizer(), [1], 500, chat=False).prompt(problem._replace(prompt=""))


def test_a_run_refuses_before_it_writes(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards "nothing half-done": an over-long prompt deep in the data set and a broken verifier stop the run first."""
    out = tmp_path / "out"
    with pytest.raises(InputError, match="--max-prompt"):
        train.train(settings_for(folder, problem_file, max_prompt=2), out, tmp_path / "cache")
    with pytest.raises(InputError, match="no_such"):
        train.train(settings_for(folder, problem_file, verifier="no_such.module:right"), out, tmp_path / "cache")
    assert not out.exists()


def scored(folder: Path) -> set[str]:
    with (folder / "rollouts.csv").open() as file:
        return {row["prompt_id"] for row in csv.DictReader(file)}


def test_no_training_problem_is_evaluated(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards held-out scores: with an instruction added, with --dataset named again, and with a --validation file."""
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"prompt": f"v{i}", "answer": "1"}) for i in range(5)))
    settings = settings_for(folder, problem_file, prompts=32, steps=2)
    for name, change in (("held", {}), ("file", {"validation": str(other)})):
        run = tmp_path / name
        train.train(replace(settings, **change), run, tmp_path / "cache")
        for given in ([], ["--instruction", "think"], ["--dataset", str(problem_file)]):
            argv = [str(run / "checkpoint.pt"), "--samples", "1", "--out", str(tmp_path / "scores"), *given]
            argv += ["--verifier", settings.verifier]
            evaluate.main(argv)
            assert scored(tmp_path / "scores") and not scored(tmp_path / "scores") & scored(run)
    with pytest.raises(InputError, match=r"shares 80 prompts"):
        train.task(replace(settings, validation=str(problem_file)))


def test_a_refused_run_keeps_the_earlier_one(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards --out: an estimator that refuses the first rewards leaves the checkpoint and logs of the run before."""
    settings, out = settings_for(folder, problem_file, steps=1), tmp_path / "out"
    train.train(settings, out, tmp_path / "cache")
    kept = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    (problem_file.parent / "judge.py").write_text("def short(answer, gold):\n    return 0.5\n")
    with pytest.raises(InputError, match=r"needs rewards in \{0, 1\}"):
        train.train(replace(settings, estimator="ebpo_nonparametric"), out, tmp_path / "cache")
    assert kept == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    graded = [
        "--verifier",
        settings.verifier,
        "--dataset",
        settings.dataset,
        "--max-new",
        "8",
        "--samples",
        "2",
        "--k",
        "1,2",
    ]
    evaluate.main([str(folder), *graded, "--limit", "3", "--out", str(tmp_path / "scores")])
    with (tmp_path / "scores/scores.csv").open() as file:
        assert next(csv.DictReader(file)).keys().isdisjoint({"pass@2", "pass@4"})


def test_answers_beyond_the_models_context_are_refused(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards long answers: prompt and --max-new must fit the positions that the model has."""
    with pytest.raises(InputError, match=r"the model reads 1024: lower one"):
        train.train(settings_for(folder, problem_file, max_new=1024), tmp_path / "run", tmp_path / "cache")


def test_an_export_replaces_no_foreign_folder(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards --export: neither the model it started from nor a folder that holds no model is deleted."""
    (tmp_path / "run/model").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no model"):
        train.train(settings_for(folder, problem_file), tmp_path / "run", tmp_path / "cache", export=True)
    mine = tmp_path / "mine/model"
    shutil.copytree(folder, mine)
    with pytest.raises(InputError, match="would replace --model"):
        train.train(settings_for(mine, problem_file), tmp_path / "mine", tmp_path / "cache", export=True)
    assert (mine / "model.safetensors").exists()


def test_a_verifier_that_fails_scores_zero_and_is_counted(folder: Path, problem_file: Path, tmp_path: Path) -> None:
    """Guards a run against its verifier: raising on some answers costs those answers and nothing else."""
    (problem_file.parent / "judge.py").write_text("def short(answer, gold):\n    return 1 / (len(answer) % 2)\n")
    train.train(settings_for(folder, problem_file, steps=2), tmp_path / "run", tmp_path / "cache")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["verifier_failures"] > 0 and rows[-1]["reward"] > 0


def test_the_papers_preset() -> None:
    """Guards --preset paper: the published set-up, which options still override."""
    settings, _ = parse(["--preset", "paper", "--steps", "7"], "")
    assert (settings.prompts, settings.mini_batch, settings.group_size, settings.lr) == (512, 128, 4, 1e-6)
    assert (settings.kl_coef, settings.order, settings.steps, settings.max_new) == (1e-3, "alternating", 7, 8192)
    assert set(PRESETS["paper"]) <= set(Settings.__dataclass_fields__)
    for argv in (["--preset", "none"], ["--steps", "many"], ["--no-such-option"], ["--order", "random"]):
        with pytest.raises(InputError, match="see --help"):
            parse(argv, "")


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards --help: each setting has its line, its default and its choices."""
    for program in (train, evaluate):
        with pytest.raises(SystemExit):
            program.main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        if program is train:
            for name in Settings.__dataclass_fields__:
                assert "--" + name.replace("_", "-") in text
            assert "easy_to_hard" in text and "(default 0.0006)" in text
