"""Runs small models of Hugging Face transformers with random weights and saves what they give.

    python transformers_models.py FILE [--compat]

`test_transformers.py` runs it twice, with `dis_ssm.compat` and without, where the models use their own slow path.
"""

import sys

import torch


def configurations():
    """The class of each model and its configuration; those that this release has."""
    import transformers

    shared = dict(
        vocab_size=99, hidden_size=48, num_hidden_layers=2, pad_token_id=0, bos_token_id=1, eos_token_id=98
    )
    options = {
        "Mamba": dict(shared, state_size=16, use_bias=True),
        "FalconMamba": dict(shared, state_size=16),
        "Mamba2": dict(shared, state_size=16, num_heads=6, head_dim=16, n_groups=2, chunk_size=8),
        "Jamba": dict(
            shared, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=4,
            attn_layer_period=4, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=2,
            use_mamba_kernels="--compat" in sys.argv,
        ),
        "Zamba": dict(
            shared, attention_hidden_size=96, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4,
            n_mamba_heads=2, mamba_d_state=16, num_hidden_layers=6, attn_layer_period=3, attn_layer_offset=1,
            use_mamba_kernels="--compat" in sys.argv,
        ),
    }  # fmt: skip
    for name, values in options.items():
        model, config = (
            getattr(transformers, name + "ForCausalLM", None),
            getattr(transformers, name + "Config", None),
        )
        if model is not None and config is not None:
            yield name, model, config(**values)


def results(model_class, config):
    """Logits of a prompt, generated tokens, and the loss and gradients of a training step."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    tokens = torch.randint(2, 97, (2, 21))
    found = {}
    with torch.no_grad():
        found["logits"] = model(tokens, use_cache=False).logits
        found["logits with a cache"] = model(tokens, use_cache=True).logits
        mask = torch.ones_like(tokens)
        mask[0, :5] = 0
        found["logits of a padded prompt"] = model(tokens, attention_mask=mask, use_cache=False).logits[:, 5:]
        found["generated"] = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
        )
    model.train()
    loss = model(tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    found["loss"] = loss.detach()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found["gradient of " + name] = parameter.grad
    return found


class Counting:
    """The native functions, and how often each model called them."""

    def __init__(self, native):
        self.native = native
        self.calls = {}

    def __getattr__(self, name):
        self.calls[name] = self.calls.get(name, 0) + 1
        return getattr(self.native, name)


def main(file, compat):
    calls = {}
    if compat:
        import dis_ssm.compat
        from dis_ssm.torch import _operators

        dis_ssm.compat.install()
    found = {}
    for name, model, config in configurations():
        if compat:
            _operators._native = counting = Counting(dis_ssm._native)
            calls[name] = counting.calls
        found[name] = results(model, config)
    torch.save({"found": found, "calls": calls}, file)


if __name__ == "__main__":
    main(sys.argv[1], "--compat" in sys.argv)
