/*
 * cli_man: chapters of the manual for man(1).
 *
 * Chapters are written in as much of Markdown as is read here: headings, paragraphs, tables, blocks and
 * words of code.  A row of a table becomes a term, behind which its inner cells stand with their
 * titles, and the last cell the text below.
 *
 * Pure.
 */
#ifndef KEYTRAIL_CLI_MAN_H
#define KEYTRAIL_CLI_MAN_H

#include "keytrail/buf.h"

/* Append the text as man(7) has it; the page's head is the caller's.  -1: memory is short. */
int cli_man_render(struct slice markdown, struct buf *out);

#endif
