/* SPDX-License-Identifier: MIT */
/*
 * pointer: a file that says in two ways where its words are.
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
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;

struct note {
    size_t offset; /* of the words, from the beginning of the file */
    char *pointer; /* to the words */
    char words[48];
};
enum { SIZE = sizeof(struct note) };

static void write_note(struct note *note);

int main(int argc, char *argv[])
{
    if (argc != 2 || *argv[1] == '-') errx(2, "usage: pointer FILE");
    const char *path = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash loses no line */

    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd == -1) err(1, "%s", path);
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size != 0 && size != SIZE)
        errx(1, "%s: the size is not %d bytes; use another file", path, SIZE);
    errno = posix_fallocate(fd, 0, SIZE);
    if (errno != 0) err(1, "%s: posix_fallocate", path);

    struct note *note = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (note == MAP_FAILED) err(1, "%s: mmap", path);
    if (note->offset == 0) write_note(note);
    if (note->offset != offsetof(struct note, words))
        errx(1, "%s: pointer did not write it; use another file", path);

    printf("the file is at %p\n", (void *)note);
    const char *words = (char *)note + note->offset;
    printf("by the offset, %zu:\n\"%.48s\"\n", note->offset, words);
    printf("by the pointer, %p:\n", (void *)note->pointer);
    printf("\"%.48s\"\n", note->pointer);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The pointer is an address in this process, the offset a position in the file.
   The offset is stored last, because a note without it is not finished. */
static void write_note(struct note *note)
{
    snprintf(note->words, sizeof note->words, "words of process %d", getpid());
    note->pointer = note->words;
    note->offset = offsetof(struct note, words);
}
