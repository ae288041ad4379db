"""Workers AI from LangChain: an answer, and a stream."""

from langchain_workersai import ChatWorkersAI

llm = ChatWorkersAI(temperature=0.2, max_tokens=120)

answer = llm.invoke("In one sentence: what is a rainbow?")
print(answer.text)
print(answer.usage_metadata)

for chunk in llm.stream("Write two lines about the sea."):
    print(chunk.text, end="", flush=True)
print()
