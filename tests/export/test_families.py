"""The round of families: any two variants of a product are a query with an exact answer."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from tiny_sizes import SIZES, TINY_ROUND  # noqa: E402

from onnx_export.errors import TrainingError  # noqa: E402
from onnx_export.model_folder import ModelFolder, load_model_folder  # noqa: E402
from onnx_export.models import CirModel, build_model  # noqa: E402
from onnx_export.training import similarity  # noqa: E402
from onnx_export.training.attributes import NOT_OF_THIS_KIND  # noqa: E402
from onnx_export.training.drawn.families import (  # noqa: E402
    KINDS,
    PARTS,
    VARIANTS,
    Families,
    family_queries,
    family_scenes,
    scene_codes,
)
from onnx_export.training.drawn.family_batches import FamilyQueries, Gallery, open_gallery  # noqa: E402
from onnx_export.training.drawn.family_round import (  # noqa: E402
    EncoderStage,
    JointStage,
    open_round_families,
)
from onnx_export.training.drawn.further import train_round_from  # noqa: E402
from onnx_export.training.drawn.part_reading import box_shares  # noqa: E402
from onnx_export.training.drawn.recipe import BUNDLED, Recipe, Run, family_round  # noqa: E402
from onnx_export.training.drawn.tokenizer import build_tokenizer  # noqa: E402
from qdrant_cir.drawn.dataset import is_held_out  # noqa: E402
from qdrant_cir.drawn.edit import edit_between  # noqa: E402
from qdrant_cir.drawn.scene import attributes  # noqa: E402
from qdrant_cir.drawn.wording import attribute_words, part_words  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return open_round_families(tmp_path_factory.mktemp("families"), TINY_ROUND, SIZES, build_tokenizer())


def joint(families: Families, *, seed: int = 3) -> tuple[CirModel, JointStage]:
    """Composer and re-ranker on random features, the composer of seed 3 as it was before."""
    model, generator = build_model(SIZES, seed=seed), torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(2 * VARIANTS, 8, generator=generator), dim=-1)
    gallery = Gallery(torch.randn(2 * VARIANTS, 5, 16, generator=generator).half(), vectors, torch.zeros(5, 16))
    stage_one = build_model(SIZES, seed=3).composer
    return model, JointStage(
        model,
        families,
        build_tokenizer(),
        before=gallery,
        gallery=gallery,
        round_=TINY_ROUND,
        stage_one=stage_one,
    )


def test_every_query_of_a_family_asks_for_what_its_target_is() -> None:
    scenes = family_scenes(5, 0)
    queries = family_queries(scenes, np.random.default_rng(0))
    assert len(scenes) == len(set(scenes)) == VARIANTS
    assert not any(is_held_out(scene) for scene in scenes)
    assert len(queries) > 10 * len(scenes)
    edits = [edit_between(scenes[reference], scenes[target]) for reference, target, _ in queries]
    steps = [len(edit.steps) for edit in edits if edit is not None]
    assert len(steps) == len(edits)
    assert steps.count(2) <= steps.count(1)


def test_what_is_known_of_a_scene_can_be_read_back_from_its_numbers() -> None:
    for scene in family_scenes(5, 1):
        read = {
            f"{part}.{kind}": values[code]
            for part, codes in zip(PARTS, scene_codes(scene), strict=True)
            for (kind, values), code in zip(KINDS.items(), codes, strict=True)
            if code != NOT_OF_THIS_KIND
        }
        assert {"family": scene.family, **read} == attributes(scene)


def test_families_stand_one_after_the_other_and_their_queries_by_length(families: Families) -> None:
    assert len(families.pictures) == len(families.captions) == 2 * VARIANTS
    assert families.starts.tolist() == [0, families.starts[1], len(families.ids)]
    owners = np.repeat([0, 1], np.diff(families.starts))
    assert np.array_equal(families.references // VARIANTS, owners)
    assert np.array_equal(families.targets // VARIANTS, owners)
    assert len(np.unique(families.scenes)) == 2 * VARIANTS
    words = build_tokenizer()
    texts = [words.decode(ids.tolist()) for ids in families.ids[: families.starts[1]]]
    lengths = [len(text.split()) for text in texts]
    assert np.mean(np.diff(lengths) >= 0) > 0.9  # marks are words of their own only when they are encoded


def test_drawn_families_go_on_where_they_were_stopped(families: Families, tmp_path: Path) -> None:
    open_round_families(tmp_path, TINY_ROUND, SIZES, build_tokenizer())
    pictures = np.lib.format.open_memmap(tmp_path / "families" / "pictures.npy", "r+")
    pictures[:] = 0
    pictures.flush()
    (tmp_path / "families" / "facts_00000.npz").unlink()
    again = open_round_families(tmp_path, TINY_ROUND, SIZES, build_tokenizer())
    for name in Families.__slots__:
        assert np.array_equal(getattr(again, name), getattr(families, name)), name


def test_only_words_that_a_query_can_do_without_are_replaced(families: Families) -> None:
    tokenizer = build_tokenizer()
    queries, known = FamilyQueries(families, tokenizer, CPU), set(np.unique(families.ids).tolist())
    texts = {
        (reference, target, len(ids)): ids
        for reference, target, ids in zip(
            families.references.tolist(), families.targets.tolist(), map(np.trim_zeros, families.ids), strict=True
        )
    }
    kept = {tokenizer.token_to_id(word) for word in (attribute_words() | part_words()) & tokenizer.get_vocab().keys()}
    replaced = 0
    for seed in range(30):
        asked = queries.draw(np.random.default_rng(seed), families=2, each=4)
        assert torch.equal(asked.mask, (asked.ids != 0).long())
        pairs = zip(asked.references.flatten().tolist(), asked.targets.flatten().tolist(), strict=True)
        for (reference, target), ids in zip(pairs, asked.ids.flatten(0, 1).numpy(), strict=True):
            ids = np.trim_zeros(ids)
            original = texts.get((reference, target, len(ids)))
            new = [number for number in ids.tolist() if number not in known]
            replaced += len(new)
            if original is not None and np.isin(ids[np.isin(ids, list(known))], original).all():
                hidden = set(original[~np.isin(ids, list(known))].tolist())
                assert not hidden & kept
    assert replaced > 30


def test_shares_of_patches_are_those_under_the_box() -> None:
    shares = box_shares(torch.tensor([[0.0, 0.0, 0.25, 0.5], [0.5, 0.5, 0.5, 0.5]]), 4)
    assert torch.allclose(shares.sum(-1), torch.ones(2))
    expected = torch.zeros(4, 4)
    expected[:2, 0] = 0.5
    assert torch.allclose(shares[0].view(4, 4), expected, atol=5e-3)


def test_a_moved_picture_shows_what_its_moved_boxes_say(families: Families) -> None:
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[0, 8:16, 12:20] = 255
    encoder = EncoderStage(
        build_model(SIZES, seed=1), replace(families, pictures=picture), torch.zeros(1, 8), TINY_ROUND
    )
    pixels = encoder._pixels(torch.tensor([0]), torch.tensor([[3, -2]]))
    ys, xs = np.nonzero((pixels[0, 0] > 0).numpy())
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (12 - 3, 8 + 2, 20 - 3, 16 + 2)


def test_absent_parts_are_not_looked_for(families: Families) -> None:
    encoder = EncoderStage(build_model(SIZES, seed=1), families, torch.zeros(2 * VARIANTS, 8), TINY_ROUND)
    rows = torch.arange(2 * VARIANTS)
    none = torch.tensor([list(values).index("none") if "none" in values else -9 for values in KINDS.values()])
    seen, known = encoder._seen(rows), torch.from_numpy(families.codes)
    assert (known[..., 1] == none[1]).any()  # some part is absent
    assert not (seen[..., 1] == none[1]).any()
    assert (seen != NOT_OF_THIS_KIND).any(-1).sum() == (families.boxes.max(-1) > 0).sum()


def test_the_image_encoders_embedding_is_held_where_it_was(families: Families, tmp_path: Path) -> None:
    model, still = build_model(SIZES, seed=1).eval(), replace(TINY_ROUND, encoder_shift=0)
    own = open_gallery(tmp_path, model, families).vectors

    def held(vectors: torch.Tensor) -> torch.Tensor:
        return EncoderStage(model, families, vectors, still).step(0)["held"]

    # one minus the cosine: 0 at its place, 2 at the opposite one, times 20
    assert float(held(own).detach()) == pytest.approx(0, abs=1e-3)
    assert float(held(-own).detach()) == pytest.approx(40, abs=1e-3)
    held(own.roll(1, 0)).backward()  # type: ignore[no-untyped-call]
    for part in (model.image_encoder.visual_encoder, model.image_encoder.vision_proj):
        assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in part.parameters())


def test_the_composer_learns_with_the_reranker_and_its_vectors_are_held(families: Families) -> None:
    model, stage = joint(families)
    losses = stage.step(0)
    assert float(losses["vectors"].detach()) == pytest.approx(0, abs=1e-4)  # nothing has moved yet
    assert float(losses["captions"].detach()) == pytest.approx(0, abs=1e-4)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.composer.text_encoder.parameters() if p.grad is not None]
    assert any(float(gradient.abs().sum()) > 0 for gradient in gradients)
    moved = joint(families, seed=4)[1].step(0)
    assert float(moved["vectors"].detach()) > 0.1
    assert float(moved["captions"].detach()) > 0.1


def test_a_family_is_scored_as_its_pairs_are_one_by_one(families: Families) -> None:
    model, stage = joint(families)
    asked = stage.queries.draw(np.random.default_rng(0), families=2, each=2)
    candidates = torch.tensor([[0, 5, 40], [31, 2, 60]])
    states = torch.randn(*asked.ids.shape, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = stage._features(asked.ids, asked.mask, states, candidates)
        for family in range(2):
            for query in range(2):
                for place, row in enumerate(candidates[family].tolist()):
                    alone = model.reranker.features(
                        asked.ids[family, query][None],
                        asked.mask[family, query][None],
                        states[family, query][None],
                        stage.gallery.of(torch.tensor([row])),
                    )
                    assert torch.allclose(together[family, query, place], alone[0], atol=1e-5)


def test_other_pictures_are_of_other_families(families: Families) -> None:
    _, stage = joint(families)
    for seed in range(5):
        others = stage._others(torch.tensor([1, 0]), torch.randn(2, 2, 8), np.random.default_rng(seed))
        assert (others[0] < VARIANTS).all()
        assert (others[1] >= VARIANTS).all()


def start() -> ModelFolder:
    return ModelFolder(build_model(SIZES, seed=3), build_tokenizer(), {"quality": "of the start"})


def test_a_round_from_a_finished_model_gives_one_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "CANDIDATES", 4)
    found = load_model_folder(train_round_from(tmp_path, start(), TINY_ROUND))
    assert "quality" not in found.provenance
    (round_,) = found.provenance["further_rounds"]
    assert round_["families"] == 2
    assert list(round_["wall_seconds"]) == ["encoder", "joint"]
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    train_round_from(tmp_path, start(), TINY_ROUND)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    with pytest.raises(TrainingError, match="other settings"):
        train_round_from(tmp_path, start(), replace(TINY_ROUND, seed=6))


def test_an_interrupted_round_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "CANDIDATES", 4)
    whole = (train_round_from(tmp_path / "whole", start(), TINY_ROUND) / "model.safetensors").read_bytes()
    take_step = JointStage.step

    def interrupted(self: JointStage, batch: int) -> dict[str, torch.Tensor]:
        if batch == 1:
            raise KeyboardInterrupt
        return take_step(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(JointStage, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_round_from(tmp_path / "stopped", start(), TINY_ROUND)
    again = train_round_from(tmp_path / "stopped", start(), TINY_ROUND)
    assert (again / "model.safetensors").read_bytes() == whole


def test_training_needs_no_system_call_that_only_linux_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(similarity, "CANDIDATES", 4)
    assert len(Run(tmp_path / "run", Recipe(groups=2)).pool().groups) == 2
    found = load_model_folder(train_round_from(tmp_path / "round", start(), TINY_ROUND))
    assert " cores, torch " in found.provenance["further_rounds"][0]["machine"]


def test_a_round_that_cannot_fill_a_step_is_refused() -> None:
    with pytest.raises(TrainingError, match="cannot draw 3 of 2 families"):
        replace(TINY_ROUND, batch=3)
    with pytest.raises(TrainingError, match="at most 4"):
        replace(TINY_ROUND, reranked=5)


def test_a_recipe_without_a_round_of_families_says_so_before_it_trains(tmp_path: Path) -> None:
    assert family_round(BUNDLED) == BUNDLED.families
    with pytest.raises(TrainingError, match="no round of families"):
        Run(tmp_path, Recipe()).train("round")
