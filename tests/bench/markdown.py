"""A table in Markdown: words, then figures."""


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|",
                      *(f"| {' | '.join(row)} |" for row in rows)])
