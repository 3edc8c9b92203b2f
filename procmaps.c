/* SPDX-License-Identifier: MIT */
/*
 * procmaps: where everything lies in the address space. proc_pid_maps(5)
 *
 *     7ffc... | stack                      |
 *             :    nothing                 :
 *     7f3a... | libraries, files, mmap()   |
 *             :    nothing, terabytes      :
 *     55d0... | code, data, bss, then heap |
 *
 *     ./procmaps procmaps.c
 *     cat /proc/$(pidof procmaps)/maps         in another terminal
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGES = 10, MOST = 200 };

struct region {
    const char *what;
    size_t address;
};

/* A line of /proc/self/maps. */
struct mapping {
    size_t start, end;
    char protection[5], name[40];
};

static int initialised = 1, uninitialised;

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

static void *map_file(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1 || fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    void *file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED) err(1, "%s", path);
    return file;
}

/* The name: what follows the last slash, also "x (deleted)"; or "[heap]". */
static int read_maps(struct mapping maps[MOST])
{
    FILE *stream = fopen("/proc/self/maps", "re");
    char line[20000];
    int count = 0, name = 0;
    if (stream == NULL) err(1, "/proc/self/maps");
    while (count < MOST && fgets(line, sizeof line, stream)) {
        struct mapping *m = &maps[count++];
        sscanf(line, "%zx-%zx %4s %*s %*s %*s %n", &m->start, &m->end,
               m->protection, &name);
        const char *slash = strrchr(line, '/');
        strncpy(m->name, slash ? slash + 1 : line + name, sizeof m->name - 1);
        m->name[strcspn(m->name, "\n")] = '\0';
        if (*m->name == '\0') strcpy(m->name, "anonymous");
    }
    fclose(stream);
    return count;
}

static void print_region(const struct region *r, const struct mapping *m)
{
    while (r->address >= m->end) m++;
    printf("%-13s %12zx  in %zx-%zx %s %.20s\n", r->what, r->address, m->start,
           m->end, m->protection, m->name);
}

static void print_row(size_t start, size_t bytes, char edge, const char *name)
{
    const char *unit = "KMGTPE";
    for (bytes /= 1024; bytes >= 10 * 1024; unit++) bytes /= 1024;
    printf("\n%16zx %c %4zu %ciB  %-20.20s %c", start, edge, bytes, *unit, name,
           edge);
}

/* From the top down, mappings of one name together, with the gaps. */
static void draw(struct mapping *maps, int count, struct region *regions)
{
    for (int i = count - 1; i >= 0; i--) {
        const size_t end = maps[i].end;
        while (i > 0 && maps[i - 1].end == maps[i].start &&
               strcmp(maps[i - 1].name, maps[i].name) == 0)
            i--;
        const size_t start = maps[i].start;
        const size_t below = i > 0 ? maps[i - 1].end : 0;
        print_row(start, end - start, '|', maps[i].name);
        for (struct region *r = regions; r->what; r++)
            if (start <= r->address && r->address < end)
                printf(" <- %s", r->what);
        if (below < start) print_row(below, start - below, ':', "nothing");
    }
    puts("");
}

static void print_resident(const char *when, void *pages, size_t length)
{
    unsigned char resident[PAGES];
    if (mincore(pages, length, resident) == -1) err(1, "mincore");
    printf("%-36s ", when);
    for (int i = 0; i < PAGES; i++) putchar(resident[i] & 1 ? '#' : '.');
    puts("");
}

int main(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'}, {0}};
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    int option = getopt_long_only(argc, argv, "", options, NULL);
    if (option == '?') return 2;
    if (option == 'h') {
        puts("usage: procmaps FILE    maps it, shows what lies where, waits\n"
             "example: procmaps procmaps.c");
        flush_stdout();
        return 0;
    }
    if (argc != optind + 1) errx(2, "want one FILE; try --help");

    guard_streams();
    static struct mapping maps[MOST];
    const size_t page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, PAGES * page, prot, flags, -1, 0);
    if (pages == MAP_FAILED) err(1, "mmap");
    struct region regions[] = {{"code", (size_t)main},
                               {"data", (size_t)&initialised},
                               {"bss", (size_t)&uninitialised},
                               {"small malloc", (size_t)malloc(100)},
                               {"large malloc", (size_t)malloc(1 << 20)},
                               {"anonymous", (size_t)pages},
                               {"file", (size_t)map_file(argv[optind])},
                               {"printf", (size_t)printf},
                               {"stack", (size_t)&option},
                               {NULL, 0}};
    int count = read_maps(maps);
    for (struct region *r = regions; r->what; r++) print_region(r, maps);
    draw(maps, count, regions);
    print_resident("in memory of ten untouched pages:", pages, PAGES * page);
    pages[0] = pages[4 * page] = pages[9 * page] = 'x';
    print_resident("in memory after touching three:", pages, PAGES * page);
    printf("[%d] Enter ends this\n", getpid());
    flush_stdout();
    getchar();
}
