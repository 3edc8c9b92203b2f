/* SPDX-License-Identifier: MIT */
/*
 * procmaps: where everything is in the address space.
 *
 *     7ffc... | stack                      |
 *             :    nothing                 :
 *     7f3a... | libraries, files, mmap()   |
 *             :    nothing, terabytes      :
 *     55d0... | code, data, bss, then heap |
 *           0 :    nothing, terabytes      :  NULL points here
 *
 *     ./procmaps procmaps.c
 *     cat /proc/$(pidof procmaps)/maps         in another terminal
 *
 * mmap(2), mincore(2), proc_pid_maps(5), pmap(1)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To experiment, change these lines. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_PRIVATE | MAP_ANONYMOUS;
enum { PAGES = 10 };

static int initialised = 1, uninitialised;

struct thing {
    const char *name; /* NULL after the last thing */
    size_t address;
};

static void print_maps(const struct thing *things);
static void print_mapping(char *line, const char *names);
static void print_gap(size_t size);
static void touch(volatile char *pages, size_t page);
static void print_pages(const char *when, volatile char *pages, size_t page);

int main(int argc, char *argv[])
{
    if (argc != 2 || *argv[1] == '-') errx(2, "usage: procmaps FILE");
    const int fd = open(argv[1], O_RDONLY);
    if (fd == -1) err(1, "%s", argv[1]);
    struct stat st;
    if (fstat(fd, &st) == -1) err(1, "%s: fstat", argv[1]);
    void *file = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED) err(1, "%s: mmap", argv[1]);

    const size_t page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, PAGES * page, prot, flags, -1, 0);
    if (pages == MAP_FAILED) err(1, "mmap of %d pages", PAGES);
    /* The kernel merges adjacent mappings of one kind. This one is different. */
    if (madvise(pages, PAGES * page, MADV_DONTFORK) == -1) err(1, "madvise");

    void *small = malloc(100), *large = malloc(1000000);
    if (small == NULL || large == NULL) err(1, "malloc");

    const struct thing things[] = {
        {"code", (size_t)main},          {"data", (size_t)&initialised},
        {"bss", (size_t)&uninitialised}, {"small malloc", (size_t)small},
        {"large malloc", (size_t)large}, {"anonymous", (size_t)pages},
        {"file", (size_t)file},          {"printf", (size_t)printf},
        {"stack", (size_t)&argc},        {NULL, 0},
    };
    print_maps(things);
    touch(pages, page);

    printf("[%d] press Enter to end\n", getpid());
    fflush(stdout);
    getchar();
    free(small);
    free(large);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The kernel's list begins with the lowest address, and the picture with the
   highest, so the list is read as a whole and printed from its end. */
static void print_maps(const struct thing *things)
{
    char lines[500][500];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL) err(1, "/proc/self/maps");
    while (count < 500 && fgets(lines[count], 500, maps) != NULL) count++;
    fclose(maps);

    size_t above = 0; /* the start of the mapping above; 0: print no gap yet */
    for (int i = count - 1; i >= 0; i--) {
        size_t start, end;
        if (sscanf(lines[i], "%zx-%zx", &start, &end) != 2) continue;
        char names[100] = "";
        for (const struct thing *t = things; t->name != NULL; t++)
            if (start <= t->address && t->address < end)
                sprintf(names + strlen(names), "  %s", t->name);
        if (above > 0) print_gap(above - end);
        if (*names != '\0') print_mapping(lines[i], names);
        if (*names != '\0' || above > 0) above = start;
    }
    print_gap(above);
    puts("           0  NULL points here");
}

/* Prints the addresses, the rights and the end of the path. */
static void print_mapping(char *line, const char *names)
{
    char addresses[40], rights[5];
    sscanf(line, "%39s %4s", addresses, rights);
    line[strcspn(line, "\n")] = '\0';
    const char *file = strrchr(line, '/');
    if (file == NULL) file = strrchr(line, ' ');
    printf("%-25s %s %-18.18s%s\n", addresses, rights, file + 1, names);
}

static void print_gap(size_t size)
{
    const char *unit = "MGTPE";
    for (size >>= 20; size >= 10 * 1024; size >>= 10) unit++;
    if (size > 0) printf("            : %zu %ciB of nothing\n", size, *unit);
}

/* mmap() only promises memory; the first access to a page makes the kernel
   provide it. Through volatile, a byte is read though nothing uses it. */
static void touch(volatile char *pages, size_t page)
{
    print_pages("of ten untouched pages:", pages, page);
    (void)pages[7 * page];
    print_pages("after reading one:", pages, page);
    pages[0] = 'x';
    pages[4 * page] = 'x';
    pages[9 * page] = 'x';
    print_pages("after writing to three:", pages, page);
}

static void print_pages(const char *when, volatile char *pages, size_t page)
{
    unsigned char resident[PAGES];
    if (mincore((void *)pages, PAGES * page, resident) == -1) err(1, "mincore");
    printf("in memory %-23s  ", when);
    for (int i = 0; i < PAGES; i++) putchar(resident[i] & 1 ? '#' : '.');
    puts("");
}
