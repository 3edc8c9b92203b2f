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

enum { PAGES = 10, THINGS = 9 };
static int initialised = 1, uninitialised;

struct thing {
    const char *name;
    size_t address;
};

static void print_maps(const struct thing *things);
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
    /* Without this, the kernel could merge the pages with another mapping. */
    if (madvise(pages, PAGES * page, MADV_DONTFORK) == -1) err(1, "madvise");

    void *small = malloc(100), *large = malloc(1000000);
    if (small == NULL || large == NULL) err(1, "malloc");

    const struct thing things[THINGS] = {
        {"code", (size_t)main},          {"data", (size_t)&initialised},
        {"bss", (size_t)&uninitialised}, {"small malloc", (size_t)small},
        {"large malloc", (size_t)large}, {"anonymous", (size_t)pages},
        {"file", (size_t)file},          {"printf", (size_t)printf},
        {"stack", (size_t)&argc},
    };
    print_maps(things);
    touch(pages, page);

    printf("[%d] press Enter to end\n", getpid());
    fflush(stdout);
    getchar();
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The kernel's list begins with the lowest address, and the picture with the
   highest. So keep the rows, and the size of the gaps below each row, until the
   list has ended. */
static void print_maps(const struct thing *things)
{
    char rows[THINGS][160], rights[5], path[4096];
    size_t gaps[THINGS + 1] = {0}; /* the last one is above the highest row */
    size_t start, end, last_end = 0;
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL) err(1, "/proc/self/maps");
    while (fscanf(maps, "%zx-%zx %4s %*s %*s %*s%4095[^\n]%*[^\n]", &start,
                  &end, rights, path) == 4) {
        char names[100] = "";
        for (int i = 0; i < THINGS; i++)
            if (start <= things[i].address && things[i].address < end)
                sprintf(names + strlen(names), "  %s", things[i].name);
        gaps[count] += start - last_end;
        last_end = end;
        if (*names == '\0') continue;
        const char *slash = strrchr(path, '/');
        const char *file = slash == NULL ? path + strspn(path, " ") : slash + 1;
        snprintf(rows[count], sizeof *rows, "%12.8zx-%-12.8zx %s %-18.18s%s",
                 start, end, rights, file, names);
        count++;
    }
    while (count-- > 0) {
        printf("%.80s\n", rows[count]);
        print_gap(gaps[count]);
    }
    puts("           0  NULL points here");
}

static void print_gap(size_t size)
{
    const char *unit = "MGTPE";
    for (size >>= 20; size >= 10 * 1024; size >>= 10) unit++;
    if (size > 0) printf("            : %zu %ciB of nothing\n", size, *unit);
}

/* mmap() only promises memory. The first access to a page makes the kernel
   provide it. Without volatile, the compiler would leave out the load. */
static void touch(volatile char *pages, size_t page)
{
    print_pages("before the first use:", pages, page);
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
    printf("pages in memory %-23s  ", when);
    for (int i = 0; i < PAGES; i++) putchar(resident[i] & 1 ? '#' : '.');
    puts("");
}
