/* SPDX-License-Identifier: MIT */
/* Turns the letters of a file into capitals: ./bugs/private FILE */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char *argv[])
{
    struct stat file;
    if (argc != 2) errx(2, "usage: private FILE");
    const int fd = open(argv[1], O_RDWR);
    if (fd == -1 || fstat(fd, &file) == -1) err(1, "%s", argv[1]);
    unsigned char *text =
        mmap(NULL, file.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (text == MAP_FAILED) err(1, "%s: mmap", argv[1]);
    for (off_t i = 0; i < file.st_size; i++) text[i] = toupper(text[i]);
    if (munmap(text, file.st_size) == -1) err(1, "munmap");
    printf("%s is in capitals.\n", argv[1]);
    return 0;
}
