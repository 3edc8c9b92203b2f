/* SPDX-License-Identifier: MIT */
/*
 * basic: map a file into memory and edit it there, without write().
 *
 *     this process                  the page cache, in the kernel
 *     | I just love.sharin | <----> | I just love.sharin | <----> disk
 *
 *     ./basic /tmp/poem.txt
 *     ./extra/why ./basic --length=8192 --read=4096 /tmp/poem.txt
 *
 * mmap(2), proc_pid_maps(5)
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static long length = -1; /* bytes to map; -1: the length of the file */

static const char *path, *old = "memories", *new = "MEMORIES";
static long offset = -1; /* the only byte to read or write; -1: edit the text */
static int writing, as_string, pausing;

static void show(const char *text, const char *place);
static void pause_before(const char *step);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash loses no line */

    /* A private mapping needs no permission to write to the file. */
    const int fd = open(path, flags == MAP_PRIVATE ? O_RDONLY : O_RDWR);
    if (fd == -1) err(1, "%s", path);
    struct stat st;
    if (fstat(fd, &st) == -1) err(1, "%s: fstat", path);
    if (length == -1) length = st.st_size;

    char *text = mmap(NULL, length, prot, flags, fd, 0);
    if (text == MAP_FAILED) err(1, "%s: mmap of %ld bytes", path, length);
    close(fd); /* the mapping remains */
    printf("%s: %ld bytes at %p\n", path, length, (void *)text);
    pause_before("go on");

    if (offset == -1) {
        char *place = memmem(text, length, old, strlen(old));
        if (place == NULL) errx(1, "%s: '%s' not found", path, old);
        show(text, place);
        pause_before("edit");
        printf("%s at %p becomes %s\n", old, (void *)place, new);
        memcpy(place, new, strlen(new));
        pause_before("look again");
        show(text, place);
    } else {
        if (writing) text[offset] = 'X';
        printf("byte %ld is 0x%02x\n", offset, (unsigned char)text[offset]);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* Shows at most 16 rows of 16 bytes, in hexadecimal and as text. The place is
   in the first half of them. */
static void show(const char *text, const char *place)
{
    if (as_string) printf("%s\n", text);
    const long start = (place - text) / 128 * 128;
    const long end = start + 256 < length ? start + 256 : length;
    for (long row = start; row < end; row += 16) {
        char hex[16 * 3 + 1] = "", chars[16 + 1] = "";
        for (int i = 0; i < 16 && row + i < end; i++) {
            const unsigned char c = text[row + i];
            sprintf(hex + 3 * i, "%02x ", c);
            chars[i] = isprint(c) ? c : '.';
        }
        printf("%8ld  %-48s |%s|\n", row, hex, chars);
    }
}

static void pause_before(const char *step)
{
    if (!pausing) return;
    printf("[%d] press Enter to %s\n", getpid(), step);
    int c = getchar();
    while (c != '\n' && c != EOF) c = getchar();
}

static const char usage[] =
    "usage: basic [--private] [--prot=rwx|none] [--length=N] [--string]\n"
    "             [--read=N] [--write=N] [--pause] FILE [OLD NEW]";

static long parse_number(const char *text)
{
    char *end;
    const long number = strtol(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end != '\0' || number == LONG_MAX)
        errx(2, "%s: not a number of bytes\n%s", text, usage);
    return number;
}

static int parse_prot(const char *letters)
{
    if (strcmp(letters, "none") == 0) return PROT_NONE;
    if (letters[strspn(letters, "rwx")] != '\0') errx(2, "%s", usage);
    return (strchr(letters, 'r') != NULL ? PROT_READ : 0) |
           (strchr(letters, 'w') != NULL ? PROT_WRITE : 0) |
           (strchr(letters, 'x') != NULL ? PROT_EXEC : 0);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"length", required_argument, NULL, 'l'},
        {"pause", no_argument, &pausing, 1},
        {"private", no_argument, &flags, MAP_PRIVATE},
        {"prot", required_argument, NULL, 'p'},
        {"read", required_argument, NULL, 'r'},
        {"string", no_argument, &as_string, 1},
        {"write", required_argument, NULL, 'w'},
        {NULL, 0, NULL, 0}};
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == '?') errx(2, "%s", usage);
        if (option == 'l') length = parse_number(optarg);
        if (option == 'p') prot = parse_prot(optarg);
        if (option == 'r' || option == 'w') offset = parse_number(optarg);
        if (option == 'w') writing = 1;
    }
    const int arguments = argc - optind;
    if (arguments != 1 && arguments != 3) errx(2, "%s", usage);
    path = argv[optind];
    if (arguments == 1) return;
    old = argv[optind + 1];
    new = argv[optind + 2];
    if (strlen(old) != strlen(new))
        errx(2, "'%s' and '%s' must have the same length", old, new);
}
