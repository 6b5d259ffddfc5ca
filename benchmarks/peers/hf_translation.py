"""PyTorch and Transformers: a new BERT decoder on a frozen pretrained encoder, as users train and run an
`EncoderDecoderModel`.

It writes in a SentencePiece vocabulary learnt from the training targets. Batches are of rows of like length, padded
to their longest. Where generous, settings favour the peer: no dropout of attention probabilities (PyTorch's attention
is slower with it), no cache in training, and beam search that stops at as many ends as beams.

`--data` has train.jsonl, validation.jsonl and test_2016_flickr.jsonl, rows of `source` and `target`. `setup` is the
imports and loading; `prepare` the vocabulary and tokenising. `epoch` is the mean of whole epochs; where `--steps` cut
the first short, `epoch_is` says that it is seconds a step, the first `WARM_UP` left out, times the steps of an epoch.
The perplexity of the validation rows is left out with `--steps`.
Generation is timed from texts to texts, after a warm-up. With `--no-cache` exactly `FIXED` pieces a row are generated
as well, with the cache and without it.
"""

import time

begun = time.perf_counter()  # before the imports: they are part of the setup

import argparse  # noqa: E402
import io  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import common  # noqa: E402
import numpy as np  # noqa: E402
import sacrebleu  # noqa: E402
import sentencepiece  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    EncoderDecoderModel,
    get_cosine_schedule_with_warmup,
    set_seed,
)

TEST = "test_2016_flickr"
PAD, UNKNOWN, START, END = 0, 1, 2, 3
SPECIAL = 4  # pieces from this on are written
IGNORED = -100  # a label of padding
LONGEST = 128  # pieces or tokens of a text, at most
SMOOTHING = 0.1
CLIP = 1.0
FIXED = 64  # pieces a row where generation is compared with and without the cache
WARM_UP = 3  # steps
MIXED = 50  # batches of rows drawn together and sorted, as Transformers groups rows by length

Pair = tuple[list[int], list[int]]  # the ids of a source and of its target


def learn(targets: list[str], size: int) -> sentencepiece.SentencePieceProcessor:
    """A byte pair vocabulary that can spell every text; fewer pieces than `size` where the texts have no more."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(targets),
        model_writer=written,
        model_type="bpe",
        vocab_size=size,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=PAD,
        unk_id=UNKNOWN,
        bos_id=START,
        eos_id=END,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def make(folder: Path, pieces: int, given: argparse.Namespace) -> EncoderDecoderModel:
    encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    width = encoder.config.hidden_size
    settings = BertConfig(
        vocab_size=pieces,
        hidden_size=width,
        num_hidden_layers=given.layers,
        num_attention_heads=width // given.head_size,
        intermediate_size=4 * width,
        max_position_embeddings=LONGEST,
        hidden_dropout_prob=given.dropout,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        add_cross_attention=True,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
    )
    model = EncoderDecoderModel(encoder=encoder, decoder=BertLMHeadModel(settings))
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    model.encoder.requires_grad_(False)
    return model


class Batches(torch.utils.data.Sampler):
    """Row numbers of each batch: of like lengths, in another order every epoch."""

    def __init__(self, pairs: list[Pair], size: int, seed: int) -> None:
        self.lengths = np.array([(len(source), len(target)) for source, target in pairs])
        self.size, self.generator = size, np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        order, batches = self.generator.permutation(len(self.lengths)), []
        for begin in range(0, len(order), MIXED * self.size):
            mixed = order[begin : begin + MIXED * self.size]
            mixed = mixed[np.lexsort(self.lengths[mixed].T)]  # by target, then by source
            batches += [mixed[i : i + self.size].tolist() for i in range(0, len(mixed), self.size)]
        return iter([batches[i] for i in self.generator.permutation(len(batches))])


def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, filler)


def collate(pairs: list[Pair]) -> dict[str, torch.Tensor]:
    ids = padded([source for source, _ in pairs], 0)
    mask = padded([[1] * len(source) for source, _ in pairs], 0)
    return {"input_ids": ids, "attention_mask": mask, "labels": padded([target for _, target in pairs], IGNORED)}


def loss_of(model: EncoderDecoderModel, batch: dict[str, torch.Tensor], smoothing: float) -> torch.Tensor:
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        encoded = model.encoder(**source)
    logits = model(
        encoder_outputs=encoded,
        attention_mask=source["attention_mask"],
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(batch["labels"]),  # padded on the right: no mask
        use_cache=False,
    ).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, label_smoothing=smoothing
    )


def train(model: EncoderDecoderModel, pairs: list[Pair], given: argparse.Namespace) -> dict[str, Any]:
    batches = Batches(pairs, given.batch_size, given.seed)
    loader = torch.utils.data.DataLoader(pairs, batch_sampler=batches, collate_fn=collate)
    steps = given.epochs * len(batches)
    decoder = model.decoder.parameters()
    optimizer = torch.optim.AdamW(decoder, given.learning_rate, weight_decay=given.weight_decay, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(given.warmup * steps), steps)
    model.train()
    model.encoder.eval()
    seconds, rows, losses, epochs, start = [], [], [], [], time.perf_counter()
    for _ in range(given.epochs):
        losses, epoch_start = [], start
        for batch in loader:
            with autocast(given.dtype):
                loss = loss_of(model, batch, SMOOTHING)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            end = time.perf_counter()
            seconds.append(end - start)
            rows.append(len(batch["labels"]))
            start = end
            if len(seconds) == given.steps:
                break
        else:
            epochs.append(start - epoch_start)
            continue
        break
    skipped = 0 if epochs else min(WARM_UP, len(seconds) - 1)
    step = float(np.mean(seconds[skipped:]))
    return {
        "steps": len(seconds),
        "steps_of_an_epoch": len(batches),
        "epoch": float(np.mean(epochs)) if epochs else step * len(batches),
        "epoch_is": "measured" if epochs else f"{step:.4f} s a step, times the steps of an epoch",
        "train": sum(seconds),
        "train_rate": sum(rows[skipped:]) / sum(seconds[skipped:]),
        "first_loss": losses[0] if len(losses) == len(seconds) else None,
        "loss": float(np.mean(losses[-len(batches) // 4 :])),  # smoothed; of the last steps
    }


@torch.no_grad()
def perplexity(model: EncoderDecoderModel, pairs: list[Pair], given: argparse.Namespace) -> float:
    """Over the pieces of the targets."""
    model.eval()
    total, pieces = 0.0, 0
    for batch in torch.utils.data.DataLoader(
        pairs, batch_sampler=Batches(pairs, given.batch_size, 0), collate_fn=collate
    ):
        here = int((batch["labels"] != IGNORED).sum())
        with autocast(given.dtype):
            total += here * float(loss_of(model, batch, 0.0))
        pieces += here
    return float(np.exp(total / pieces))


@torch.inference_mode()
def translate(
    model: EncoderDecoderModel, tokenizer: Any, vocabulary: Any, texts: list[str], batch_size: int, **settings: Any
) -> tuple[list[str], float]:
    """Translations, and how many pieces a row has in the mean, the end left out."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    written, pieces = [""] * len(texts), 0
    for begin in range(0, len(order), batch_size):
        here = order[begin : begin + batch_size]
        sources = [texts[i] for i in here]
        inputs = tokenizer(sources, truncation=True, max_length=LONGEST, padding=True, return_tensors="pt")
        ids = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, **settings
        )
        rows = [[piece for piece in row if piece >= SPECIAL] for row in ids.tolist()]
        pieces += sum(map(len, rows))
        for i, text in zip(here, vocabulary.decode(rows), strict=True):
            written[i] = text
    return written, pieces / len(texts)


def generate(model: EncoderDecoderModel, tokenizer: Any, vocabulary: Any, given: argparse.Namespace) -> list[dict]:
    """Every way of writing the first rows of the test set, timed."""
    rows = common.read_rows(given.data, TEST)
    chosen = rows[: given.generate]
    texts = [row["source"] for row in chosen]
    ways: list[tuple[bool, int, int]] = [(True, 0, given.max_new_tokens)]  # cache, pieces at least, at most
    if given.no_cache:
        ways += [(True, FIXED, FIXED), (False, FIXED, FIXED)]
    model.eval()
    found = []
    for cache, least, most in ways:
        for beams in given.beams:
            settings: dict[str, Any] = {"num_beams": beams, "use_cache": cache, "max_new_tokens": most}
            settings |= {"min_new_tokens": least} if least else {}
            settings |= {"early_stopping": True} if beams > 1 else {}
            with autocast(given.dtype):
                warming = settings | {"max_new_tokens": 4, "min_new_tokens": 4}
                translate(model, tokenizer, vocabulary, texts[:8], given.generate_batch, **warming)
                start = time.perf_counter()
                written, pieces = translate(model, tokenizer, vocabulary, texts, given.generate_batch, **settings)
            seconds = time.perf_counter() - start
            result = {"beams": beams, "cache": cache, "least": least, "most": most, "rows": len(texts)}
            result |= {"seconds": seconds, "rate": len(texts) / seconds, "pieces": pieces}
            if len(chosen) == len(rows) and not least:
                result["bleu"] = sacrebleu.corpus_bleu(written, [[row["target"] for row in chosen]]).score
            found.append(result)
    return found


def autocast(dtype: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def parse() -> argparse.Namespace:
    options = common.parser(__doc__, data=False)
    options.add_argument("--data", type=Path, required=True, help="a folder with train, validation and test rows")
    options.add_argument("--limit", type=int, help="training rows, at most")
    options.add_argument("--layers", type=int, default=3, help="blocks of the decoder")
    options.add_argument("--head-size", type=int, default=64, help="of the decoder's attention")
    options.add_argument("--vocabulary", type=int, default=6000, help="pieces")
    options.add_argument("--dropout", type=float, default=0.3, help="of the decoder")
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--steps", type=int, help="stop after so many")
    options.add_argument("--batch-size", type=int, default=96)
    options.add_argument("--learning-rate", type=float, default=1e-3, help="peak; a cosine falls from it to 0")
    options.add_argument("--warmup", type=float, default=0.05, help="share of the steps")
    options.add_argument("--weight-decay", type=float, default=0.01)
    options.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    options.add_argument("--generate", type=int, default=0, help="test rows to translate")
    options.add_argument("--generate-batch", type=int, default=64)
    options.add_argument("--beams", type=int, nargs="+", default=[4, 1])
    options.add_argument("--max-new-tokens", type=int, default=64)
    options.add_argument("--no-cache", action="store_true", help=f"{FIXED} pieces a row with the cache and without")
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args()


def main() -> None:
    given = parse()
    set_seed(given.seed)  # for the decoder's initial weights and dropout
    rows = common.read_rows(given.data, "train")[: given.limit]
    imported = time.perf_counter()
    vocabulary = learn([row["target"] for row in rows], given.vocabulary)
    learnt = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = make(given.model, vocabulary.vocab_size(), given)
    loaded = time.perf_counter()

    def pairs(rows: list[dict]) -> list[Pair]:
        sources = tokenizer([row["source"] for row in rows], truncation=True, max_length=LONGEST)["input_ids"]
        targets = vocabulary.encode([row["target"] for row in rows])
        return [(s, [*t[: LONGEST - 1], END]) for s, t in zip(sources, targets, strict=True)]

    train_pairs = pairs(rows)
    prepared = time.perf_counter()
    trained = train(model, train_pairs, given)
    common.report(
        peer="hf-translation",
        dtype=given.dtype,
        threads=torch.get_num_threads(),
        rows=len(rows),
        pieces=vocabulary.vocab_size(),
        decoder_parameters=sum(p.numel() for p in model.decoder.parameters()),
        setup=imported - begun + loaded - learnt,
        prepare=learnt - imported + prepared - loaded,
        **trained,
        perplexity=None if given.steps else perplexity(model, pairs(common.read_rows(given.data, "validation")), given),
        generation=generate(model, tokenizer, vocabulary, given) if given.generate else [],
    )


if __name__ == "__main__":
    main()
