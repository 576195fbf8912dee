"""An adapter that the engine serves says what the same adapter says in transformers, token by token."""

from typing import Any

from acceptance import little_runs, models
from acceptance.bench import Bench, Figures, Note, UnequalError
from acceptance.served_home import ServedHome, ask

TEXT = "What follows 11? It is 12. Aye. Aye. What follows 40? Aye. It is 41."
# Of log-probabilities, both computed in bf16 by other kernels.
MEAN_TOLERANCE, MOST_TOLERANCE = 0.03, 0.25


def run(bench: Bench, note: Note) -> Figures:
    trained = little_runs.train(bench, little_runs.fresh(bench, "to-serve"), epochs=4)
    tokens, base, adapted = in_transformers(bench, trained.adapter)
    home = ServedHome(bench, "equal", little_runs.shape(bench))
    name = home.publish(trained.adapter, "equal")
    with home.server() as address:
        # The first question has the gateway load it into the engine.
        message = {"role": "user", "content": "What follows 3?"}
        ask(address, "/v1/chat/completions", {"model": name, "messages": [message], "max_tokens": 4})
        served = in_engine(home.engine_socket, name, tokens)
        served_base = in_engine(home.engine_socket, home.model.name, tokens)
    figures = {
        "tokens": len(tokens) - 1,
        "adapter": apart(served, adapted),
        "base": apart(served_base, base),
        "adapter_and_base": apart(adapted, base),
    }
    note(figures)
    for which in ("adapter", "base"):
        if figures[which]["mean"] > MEAN_TOLERANCE or figures[which]["most"] > MOST_TOLERANCE:
            raise UnequalError(f"{which}: engine and transformers are apart: {figures}")
    if figures["adapter_and_base"]["mean"] <= 2 * MEAN_TOLERANCE:
        raise UnequalError(f"the adapter changes too little to compare anything: {figures}")
    return figures


def in_transformers(bench: Bench, adapter: Any) -> tuple[list[int], list[float], list[float]]:
    """The tokens of the text, and the log-probability of each but the first: by the base, and with the adapter."""
    import torch
    from transformers import AutoModelForCausalLM

    from training import lora
    from training.examples.labels import load_tokenizer

    folder = models.decoder(bench, little_runs.shape(bench))
    tokens = load_tokenizer(folder)(TEXT, add_special_tokens=False)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    model = lora.with_adapter(model.to(bench.device), adapter)

    def said() -> list[float]:
        ids = torch.tensor([tokens], device=bench.device)
        with torch.no_grad():
            chances = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        return chances.gather(1, ids[0, 1:, None]).squeeze(1).tolist()

    adapted = said()
    with lora.without_adapter(model):
        return tokens, said(), adapted


def in_engine(socket: Any, model: str, tokens: list[int]) -> list[float]:
    body = {"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    choice = ask(socket, "/v1/completions", body)["choices"][0]
    told = choice["prompt_logprobs"][1:]  # nothing comes before the first
    return [one[str(token)]["logprob"] for one, token in zip(told, tokens[1:], strict=True)]


def apart(one: list[float], other: list[float]) -> dict[str, float]:
    differences = [abs(a - b) for a, b in zip(one, other, strict=True)]
    return {"mean": sum(differences) / len(differences), "most": max(differences)}
