/* SPDX-License-Identifier: MIT */
/*
 * pointer: a file that records in two ways where its words are.
 *
 *     first run: mapped at 0x7f20...000  | 16 | 0x7f20...010 | words |
 *     next run:  mapped at 0x7fc5...000  | 16 | 0x7f20...010 | words |
 *                                          |          +---> nothing
 *                                          +--------------> the words
 *
 *     ./extra/pointer /tmp/pointer.bin            twice
 *     setarch -R ./extra/pointer /tmp/fixed.bin   twice
 *
 * mmap(2), setarch(8)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

struct note {
    size_t offset; /* of the words, from the beginning of the file */
    char *pointer; /* to the words */
    char words[48];
};
enum { SIZE = sizeof(struct note) };

static void write_note(int fd, const struct note *place);

int main(int argc, char *argv[])
{
    if (argc != 2 || *argv[1] == '-') errx(2, "usage: pointer FILE");
    const char *path = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash loses no line */

    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd == -1) err(1, "%s", path);
    const struct note *note = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    if (note == MAP_FAILED) err(1, "%s: mmap", path);

    const off_t size = lseek(fd, 0, SEEK_END);
    if (size == 0)
        write_note(fd, note);
    else if (size != SIZE || note->offset != offsetof(struct note, words))
        errx(1, "%s: not written by pointer; use another file", path);

    printf("the file is at %p\n", (void *)note);
    const char *words = (const char *)note + note->offset;
    printf("by the offset, %zu:\n\"%.48s\"\n", note->offset, words);
    printf("by the pointer, %p:\n", (void *)note->pointer);
    printf("\"%.48s\"\n", note->pointer);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The file is still empty, but its address is already known. One write() makes
   it complete, so a killed run leaves no half-written note. */
static void write_note(int fd, const struct note *place)
{
    struct note note = {.offset = offsetof(struct note, words),
                        .pointer = (char *)place->words};
    snprintf(note.words, sizeof note.words, "words of process %d", getpid());
    if (write(fd, &note, SIZE) != SIZE) err(1, "writing the note failed");
}
