#include "cli/cli_man.h"

#include <stdbool.h>

#define CELLS_MAX 8

struct page {
	struct buf *out;
	bool failed;
	bool block;		  /* of code */
	bool headed;		  /* nothing stands below the heading yet */
	bool apart;		  /* a paragraph has ended */
	char head[CELLS_MAX][32]; /* titles of the table's cells */
	bool table;
};

static void
put(struct page *p, struct slice s)
{
	p->failed |= buf_append_slice(p->out, s) == -1;
}

#define PUT(p, literal) put((p), SLICE(literal))

/* ---- text ---- */

static void
put_char(struct page *p, char c, bool code)
{
	static const struct {
		char c;
		bool code_only;
		struct slice text;
	} escapes[] = {
		{ '\\', false, SLICE_INIT("\\e") },
		{ '-', true, SLICE_INIT("\\-") },
		{ '\'', false, SLICE_INIT("\\(aq") },
		{ '^', false, SLICE_INIT("\\(ha") },
		{ '~', false, SLICE_INIT("\\(ti") },
	};

	for (size_t i = 0; i < sizeof(escapes) / sizeof(escapes[0]); i++)
		if (escapes[i].c == c && (code || !escapes[i].code_only)) {
			put(p, escapes[i].text);
			return;
		}
	put(p, (struct slice){ &c, 1 });
}

static void
put_text(struct page *p, struct slice s)
{
	bool code = p->block;

	if (s.n > 0 && s.p[0] == '.')
		PUT(p, "\\&"); /* else a request */
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '`' && !p->block) {
			code = !code;
			put(p, code ? SLICE("\\fB") : SLICE("\\fR"));
		} else if (s.p[i] != '\\' || i + 1 == s.n || s.p[i + 1] != '|') {
			put_char(p, s.p[i], code);
		}
	}
}

/* ---- tables ---- */

/* "| a | b |" */
static size_t
split_row(struct slice line, struct slice cells[CELLS_MAX])
{
	struct slice rest = slice_sub(line, 1, line.n);
	size_t n = 0;

	while (rest.n > 0 && n < CELLS_MAX) {
		const char *end = memmem(rest.p, rest.n, " |", 2);

		if (end == NULL)
			break;
		cells[n++] = slice_trim(slice_sub(rest, 0, (size_t)(end - rest.p)));
		rest = slice_sub(rest, (size_t)(end - rest.p) + 2, rest.n);
	}
	return n;
}

static void
put_term(struct page *p, const struct slice *cells, size_t n)
{
	const char *before = "  (";

	PUT(p, ".TP\n");
	p->headed = false;
	put_text(p, cells[0]);
	for (size_t i = 1; i + 1 < n; i++) {
		if (cells[i].n == 0)
			continue;
		put(p, slice_of(before));
		put(p, slice_of(p->head[i]));
		PUT(p, ": ");
		put_text(p, cells[i]);
		before = "; ";
	}
	put(p, before[0] == ';' ? SLICE(")\n") : SLICE("\n"));
	put_text(p, cells[n - 1]);
	PUT(p, "\n");
}

static void
put_row(struct page *p, struct slice line)
{
	struct slice cells[CELLS_MAX];
	size_t n = split_row(line, cells);

	if (!p->table)
		for (size_t i = 0; i < n; i++)
			slice_to_cstr(cells[i], p->head[i], sizeof(p->head[i]));
	else if (n > 1 && !slice_has_prefix(cells[0], SLICE("---")))
		put_term(p, cells, n);
	p->table = true;
}

/* ---- lines ---- */

static void
put_heading(struct page *p, struct slice request, struct slice title)
{
	put(p, request);
	put_text(p, title);
	PUT(p, "\n");
	p->headed = true;
}

static void
put_paragraph(struct page *p)
{
	if (!p->headed)
		PUT(p, ".PP\n");
	p->headed = false;
}

static void
put_fence(struct page *p)
{
	p->block = !p->block;
	if (p->block)
		put_paragraph(p);
	put(p, p->block ? SLICE(".RS 4\n.nf\n") : SLICE(".fi\n.RE\n"));
}

static void
put_line(struct page *p, struct slice line)
{
	bool apart = p->apart, table = line.n > 0 && line.p[0] == '|';

	p->apart = line.n == 0;
	p->table &= table;
	if (slice_has_prefix(line, SLICE("```"))) {
		put_fence(p);
	} else if (slice_has_prefix(line, SLICE("# "))) {
		put_heading(p, SLICE(".SH "), slice_sub(line, 2, line.n));
	} else if (slice_has_prefix(line, SLICE("## "))) {
		put_heading(p, SLICE(".SS "), slice_sub(line, 3, line.n));
	} else if (table) {
		put_row(p, line);
	} else if (line.n > 0) {
		if (apart)
			put_paragraph(p);
		put_text(p, line);
		PUT(p, "\n");
	}
}

int
cli_man_render(struct slice markdown, struct buf *out)
{
	struct page p = { .out = out };

	while (markdown.n > 0) {
		const char *end = memchr(markdown.p, '\n', markdown.n);
		size_t n = end != NULL ? (size_t)(end - markdown.p) : markdown.n;

		put_line(&p, slice_sub(markdown, 0, n));
		markdown = slice_sub(markdown, end != NULL ? n + 1 : n, markdown.n);
	}
	return p.failed ? -1 : 0;
}
