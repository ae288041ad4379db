"""Workers AI from LlamaIndex: an answer, and a stream."""

from llama_index.core.llms import ChatMessage

from llamaindex_workersai import WorkersAI

llm = WorkersAI(temperature=0.2, max_tokens=120)

answer = llm.complete("In one sentence: what is a rainbow?")
print(answer.text)
print(answer.additional_kwargs)

for piece in llm.stream_chat([ChatMessage("Write two lines about the sea.")]):
    print(piece.delta, end="", flush=True)
print()
