"""The prompt model against OpenAI's own encode_text, at the real sizes of the text encoders."""

import functools

import pytest
import torch
from conftest import CLASSNAMES, make_clip
from torch.nn.functional import normalize

from tlla.backbones.openai_package import clip
from tlla.errors import InputError
from tlla.prompts import chunks
from tlla.prompts.conditional import ConditionalCLIP, ConditionalPromptLearner
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import zeroshot_features

VIT = "ViT-B/32 and ViT-B/16"
ARCHS = {  # with small image encoders
    VIT: (512, 32, 1, 64, 32, 77, 49408, 512, 8, 12),
    "RN50": (1024, 32, (1, 1, 1, 1), 8, None, 77, 49408, 512, 8, 2),  # of the same 12 layers
}
RARE = 30_000  # first of the token ids whose embeddings the reference overwrites by context vectors


@pytest.fixture(scope="module")
def real_clip():
    return make_clip(ARCHS[VIT])


def reference_text_features(model, names, ctx, position):
    """Context vectors as the embeddings of rare tokens, so that a prompt is a plain token sequence for encode_text."""
    encode = clip._tokenizer.encode
    weight = model.token_embedding.weight.data
    n_ctx = ctx.shape[-2]
    words = list(range(RARE, RARE + n_ctx))
    kept, features = weight[words].clone(), []
    for k, name in enumerate(names):
        weight[words] = ctx[k] if ctx.dim() == 3 else ctx
        name_ids, stop = encode(name.replace("_", " ")), encode(".")
        half = n_ctx // 2
        body = {
            "end": words + name_ids,
            "middle": words[:half] + name_ids + words[half:],
            "front": name_ids + words,
        }[position]
        tokens = torch.zeros(1, 77, dtype=torch.long)
        sequence = [49406, *body, *stop, 49407]
        tokens[0, : len(sequence)] = torch.tensor(sequence)
        features.append(model.encode_text(tokens)[0])
    weight[words] = kept
    return normalize(torch.stack(features), dim=-1)


@pytest.mark.parametrize(
    ("name", "position", "csc"),
    [(VIT, "front", False), (VIT, "middle", True), ("RN50", "end", False)],
)
def test_logits_equal_full_length_encode_text(real_clip, name, position, csc):
    real_clip = real_clip if name == VIT else make_clip(ARCHS[name])
    learner = PromptLearner(real_clip, CLASSNAMES, n_ctx=5, csc=csc, class_token_position=position)
    model = PromptedCLIP(real_clip, learner)
    image_features = normalize(torch.randn(3, real_clip.text_projection.shape[1]), dim=-1)
    with torch.no_grad():
        logits = model.logits(image_features, model.encode_text())
        expected = reference_text_features(real_clip, CLASSNAMES, learner.ctx.data, position)
    scale = real_clip.logit_scale.exp()
    torch.testing.assert_close(logits, scale * image_features @ expected.t(), atol=1e-5, rtol=0)
    assert learner.embeddings.shape[1] < 20  # and it was cut: 77 tokens would prove nothing


def test_unlearned_words_equal_the_hand_written_template(real_clip):
    tokens = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in CLASSNAMES])
    with torch.no_grad():
        expected = normalize(real_clip.encode_text(tokens), dim=-1)
        learned = PromptedCLIP(real_clip, PromptLearner(real_clip, CLASSNAMES, ctx_init="a photo of a")).encode_text()
        written = zeroshot_features(real_clip, CLASSNAMES, "a photo of a {}.")
    torch.testing.assert_close(learned, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(written, expected, atol=1e-5, rtol=0)


def test_forward_gives_scaled_cosine_similarity_of_images(tiny_clip):
    model = PromptedCLIP(tiny_clip, PromptLearner(tiny_clip, CLASSNAMES, ctx_init="a photo of a"))
    images = torch.randn(4, 3, 32, 32)
    tokens = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in CLASSNAMES])
    expected, _ = tiny_clip(images, tokens)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("csc", (False, True))
@pytest.mark.parametrize("chunk", (1, 4, 1000))
def test_many_prompts_in_one_call_equal_one_at_a_time(tiny_clip, csc, chunk):
    learner = PromptLearner(tiny_clip, CLASSNAMES, n_ctx=3, csc=csc)
    model = PromptedCLIP(tiny_clip, learner, text_chunk=chunk)
    contexts = learner.ctx.data + 0.1 * torch.randn(5, *learner.ctx.shape)
    with torch.no_grad():
        together = model.encode_text(contexts)
        alone = torch.stack([model.encode_text(ctx) for ctx in contexts])
    assert together.shape == (5, len(CLASSNAMES), 32)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def kept_by_the_graph(model, ctx):
    """Bytes of all tensors that the graph of the class features keeps, CLIP's weights apart."""
    sizes, weights = {}, {p.untyped_storage().data_ptr() for p in model.clip.parameters()}

    def pack(x):
        if x.is_floating_point() and x.untyped_storage().data_ptr() not in weights:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        features = model.encode_text(ctx)
    del features
    return sum(sizes.values())


KINDS = ("shared", "class-specific", "several", "several class-specific", "conditional", "several middle", "front")
NAME_AFTER = {"end": 3, "middle": 1, "front": 0}  # of 3 context tokens


def contexts_of(model, kind):
    """A model and the contexts that it is asked for, a leaf."""
    if kind == "conditional":
        learner = ConditionalPromptLearner(model, CLASSNAMES, n_ctx=3)
        return ConditionalCLIP(model, learner), learner.shifted(torch.randn(4, 32)).detach().requires_grad_()
    position = kind.split()[-1] if kind.endswith(("middle", "front")) else "end"
    learner = PromptLearner(model, CLASSNAMES, n_ctx=3, csc="class" in kind, class_token_position=position)
    shape = (5, *learner.ctx.shape) if "several" in kind else learner.ctx.shape
    return PromptedCLIP(model, learner), (0.1 * torch.randn(shape)).requires_grad_()


def features_and_gradient(model, ctx, dtype=None):
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        features = model.encode_text(ctx)
    torch.manual_seed(1)
    return features.detach(), *torch.autograd.grad((features * torch.randn(features.shape)).sum(), ctx)


def whole(model, ctx):
    """Features and gradient of all prompts at once, each with all of its 77 tokens."""
    learner = model.prompt_learner
    contexts = ctx if ctx.dim() > learner.ctx.dim() else ctx[None]
    rows = []
    for context in contexts:
        for k, name in enumerate(learner.classnames):
            tokens = clip.tokenize("X X X " + name + ".")
            x = model.clip.token_embedding(tokens)[0]
            own = context[k] if context.dim() == 3 else context
            before, end = NAME_AFTER[learner.class_token_position], 4 + len(clip._tokenizer.encode(name))
            x = torch.cat([x[:1], own[:before], x[4:end], own[before:], x[end:]]) + model.clip.positional_embedding
            x = model.clip.ln_final(model.clip.transformer(x[:, None]))[tokens.argmax(), 0]
            rows.append(normalize(x @ model.clip.text_projection, dim=-1))
    features = torch.stack(rows).view(*ctx.shape[: ctx.dim() - learner.ctx.dim()], len(learner.lengths), -1)
    torch.manual_seed(1)
    return features.detach(), *torch.autograd.grad((features * torch.randn(features.shape)).sum(), ctx)


@functools.cache
def contexts_and_whole(model, kind):
    model, ctx = contexts_of(model, kind)
    return model, ctx, *whole(model, ctx)


CHUNKS = ((1, 1), (4, 64), (7, 1), (0, 64))
TWO_EACH = [(kind, *CHUNKS[(i + j) % 4]) for i, kind in enumerate(KINDS) for j in (0, 1)]


@pytest.mark.parametrize(("kind", "chunk", "least"), TWO_EACH)
def test_chunks_change_neither_features_nor_gradient(tiny_clip, monkeypatch, kind, chunk, least):
    monkeypatch.setattr(chunks, "LEAST", least)
    model, ctx, expected, expected_gradient = contexts_and_whole(tiny_clip, kind)
    model.text_chunk = chunk
    features, gradient = features_and_gradient(model, ctx)
    torch.testing.assert_close(features, expected, atol=4e-6, rtol=0)  # 64 roundings of 2**-24
    assert (gradient - expected_gradient).abs().max() < 4e-6 * expected_gradient.abs().max().clamp(min=1)


def test_only_some_classes_can_be_encoded(tiny_clip):
    model, ctx = contexts_of(tiny_clip, "several")
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_text(ctx, [1, 3, 5]), model.encode_text(ctx)[:, 1::2], atol=1e-6, rtol=0
        )


def test_bf16_gives_the_same_when_it_is_computed_again(tiny_clip):
    model, ctx = contexts_of(tiny_clip, "shared")
    plain = features_and_gradient(model, ctx, torch.bfloat16)
    model.text_chunk = 2
    again = features_and_gradient(model, ctx, torch.bfloat16)
    assert again[0].dtype == torch.float32 and (plain[0] - features_and_gradient(model, ctx)[0]).abs().max() > 1e-4
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2 * one.abs().max().item(), rtol=0)


def test_memory_is_that_of_a_chunk_when_activations_are_computed_again(tiny_clip, monkeypatch):
    model, ctx = contexts_of(tiny_clip, "several")
    all_at_once = kept_by_the_graph(model, ctx)
    model.text_chunk = 5  # of 30
    assert kept_by_the_graph(model, ctx) < all_at_once / 5
    model.text_chunk = 0
    monkeypatch.setattr(chunks, "BUDGET", all_at_once // 3)
    assert kept_by_the_graph(model, ctx) < all_at_once / 5
    monkeypatch.setattr(chunks, "BUDGET", 2 * all_at_once)
    assert kept_by_the_graph(model, ctx) > all_at_once / 2


def test_activations_are_estimated_as_they_are(real_clip):
    names = [f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"]
    model = PromptedCLIP(real_clip, PromptLearner(real_clip, names, ctx_init="a photo of a"))
    tokens = 64 * (model.prompt_learner.lengths[0] - model.prompt_learner.n_shared)
    found = kept_by_the_graph(model, model.prompt_learner.ctx)
    assert found * chunks.token_limit(real_clip) / tokens == pytest.approx(chunks.BUDGET, rel=0.03)


@pytest.mark.parametrize(
    ("lengths", "n_contexts", "most", "contexts", "expected", "many"),
    [
        ([7] * 5, 1, 2, 1, [2, 2, 1], True),
        ([7] * 5, 1, 5, 1, [5], False),
        ([7] * 5, 1, 0, 1, [5], False),
        ([7, 7, 7, 8, 9], 1, 0, 1, [4, 1], True),  # 40 tokens: not 5 of 9
        ([5] * 3 + [6], 1, 0, 1, [3, 1], False),  # as soon as there are LEAST of one length
        ([5, 6, 7], 1, 0, 1, [3], False),  # too few to be kept apart
        ([50, 60], 1, 0, 1, [1, 1], True),  # one prompt is more than allowed
        ([7] * 5, 2, 0, 2, [2, 2, 1], True),  # each class twice: 14 tokens
        ([7] * 5, 8, 0, 5, [1, 1, 1, 1, 1], True),  # 5 contexts of one class, then 3
        ([7] * 5, 8, 2, 2, [1, 1, 1, 1, 1], True),
    ],
)
def test_prompts_are_cut_into_chunks_of_similar_length(
    monkeypatch, lengths, n_contexts, most, contexts, expected, many
):
    monkeypatch.setattr(chunks, "LEAST", 3 if len(set(lengths)) == 2 else 64)
    found = chunks.plan_chunks(lengths, n_contexts, most, tokens=40)
    assert ([len(chunk) for chunk in found.classes], found.many) == (expected, many)
    assert found.contexts == contexts
    assert [i for chunk in found.classes for i in chunk] == list(range(len(lengths)))


def test_a_prompt_serves_another_class_set(tiny_clip):
    learner = PromptLearner(tiny_clip, CLASSNAMES, n_ctx=3)
    model = PromptedCLIP(tiny_clip, learner)
    learner.set_classes(["cat", "a much longer name of a class"])
    with torch.no_grad():
        expected = reference_text_features(tiny_clip, learner.classnames, learner.ctx.data, "end")
        torch.testing.assert_close(model.encode_text(), expected, atol=1e-5, rtol=0)


def test_only_the_context_is_trained_and_saved(tiny_clip):
    model = PromptedCLIP(tiny_clip, PromptLearner(tiny_clip, CLASSNAMES))
    assert list(model.prompt_learner.state_dict()) == ["ctx"]
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["prompt_learner.ctx"]
    assert model.train().prompt_learner.training and not model.clip.training


def test_context_is_float32_for_a_half_precision_backbone():
    half = make_clip((32, 32, 2, 64, 16, 77, 49408, 64, 1, 2)).half()
    assert PromptLearner(half, CLASSNAMES).ctx.dtype == torch.float32


def test_random_context_has_std_002(tiny_clip):
    ctx = PromptLearner(tiny_clip, CLASSNAMES, n_ctx=60).ctx
    assert abs(ctx.std().item() - 0.02) < 0.001 and abs(ctx.mean().item()) < 0.001


def test_words_of_several_tokens_count_as_tokens(tiny_clip):
    learner = PromptLearner(tiny_clip, ["dog"], ctx_init="a photorealistic rendering of")
    assert learner.n_ctx == len(clip._tokenizer.encode("a photorealistic rendering of")) > 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"classnames": ["dog", "x" + " very" * 80]}, "82 tokens|has 8. tokens"),
        ({"classnames": []}, "empty"),
        ({"class_token_position": "back"}, "'back'"),
        ({"n_ctx": 0}, "N_CTX must be at least 1"),
    ],
)
def test_bad_prompts_are_named(tiny_clip, kwargs, message):
    with pytest.raises(InputError, match=message):
        PromptLearner(**{"clip_model": tiny_clip, "classnames": CLASSNAMES, **kwargs})


def test_class_specific_context_refuses_another_number_of_classes(tiny_clip):
    learner = PromptLearner(tiny_clip, CLASSNAMES, csc=True)
    with pytest.raises(InputError, match=r"is for 6 classes .* but this run has 2 \(cat, dog\)"):
        learner.set_classes(["cat", "dog"])


def test_template_without_a_place_for_the_name_is_refused(tiny_clip):
    with pytest.raises(InputError, match="has no {}"):
        zeroshot_features(tiny_clip, CLASSNAMES, "a photo of a dog.")
