"""Generation token by token, as `mamba_ssm.utils.generation` has it: greedy, or drawn from the most likely tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

import torch


@dataclass
class InferenceParams:
    """States of a model between tokens: by layer in `key_value_memory_dict`, with the number of tokens seen."""

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict = field(default_factory=dict)
    lengths_per_sample: Optional[Any] = None

    def reset(self, max_seqlen, max_batch_size):
        """For a new sequence of the same batch."""
        self.max_seqlen = max_seqlen
        self.max_batch_size = max_batch_size
        self.seqlen_offset = 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


@dataclass
class Generated:
    """Sequences (batch, length) of tokens, and where asked the logits (batch, vocabulary) that each was chosen from."""

    sequences: torch.Tensor
    scores: Optional[list] = None


def _most_likely(logits, top_p):
    """Logits of the fewest tokens that make up `top_p` of the probability; the others are minus infinity."""
    ordered, order = torch.sort(logits, descending=True)
    probabilities = ordered.softmax(dim=-1)
    # The most likely token always stays.
    drop = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return logits.masked_fill(drop.scatter(-1, order, drop), float("-inf"))


def choose(logits, top_k, top_p, min_p, temperature):
    """The next tokens (batch,) from logits (batch, vocabulary)."""
    if top_k == 1:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if top_k > 0:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if min_p > 0.0:
        probabilities = logits.softmax(dim=-1)
        logits = logits.masked_fill(
            probabilities < min_p * probabilities.amax(-1, keepdim=True), float("-inf")
        )
    elif 0.0 < top_p < 1.0:
        logits = _most_likely(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1).squeeze(-1)


class GenerationMixin:
    """`generate` for a model whose `forward` takes `inference_params` and `num_last_tokens`."""

    def allocate_inference_cache(self, batch_size, max_seqlen, dtype=None, **kwargs):
        """States of all layers; the model says which."""
        raise NotImplementedError

    @torch.inference_mode()
    def generate(
        self,
        input_ids,
        max_length,
        top_k=1,
        top_p=0.0,
        min_p=0.0,
        temperature=1.0,
        return_dict_in_generate=False,
        output_scores=False,
        eos_token_id=None,
        cg=False,
        **kwargs,
    ):
        """Goes on from `input_ids` (batch, length) to `max_length` tokens, or until all have ended.

        `top_k` 1 takes the most likely token, 0 draws from all; `cg` (CUDA graphs) has no effect.
        Returns the sequences, or with `return_dict_in_generate` an object with `sequences` and `scores`.

        Raises
        ------
        TypeError
            For options that are not among these.
        """
        # What asks for nothing is accepted: None, False, and a penalty of one.
        nothing = ("None", "False", "1.0")
        unknown = [name for name, value in kwargs.items() if repr(value) not in nothing]
        if unknown:
            raise TypeError(f"generate: not available here: {', '.join(unknown)}")
        states = InferenceParams(max_seqlen=max_length, max_batch_size=input_ids.shape[0])
        sequences, scores, tokens = input_ids, [], input_ids
        while sequences.shape[1] < max_length:
            logits = self(tokens, inference_params=states, num_last_tokens=1).logits[:, -1]
            states.seqlen_offset += tokens.shape[1]
            tokens = choose(logits, top_k, top_p, min_p, temperature)[:, None]
            sequences = torch.cat([sequences, tokens], dim=1)
            if output_scores:
                scores.append(logits)
            if eos_token_id is not None and (tokens == eos_token_id).all():
                break
        found = Generated(sequences, scores if output_scores else None)
        return found if return_dict_in_generate else found.sequences
