// Shows one frame of each film: all of them by the slider, those of one run by a click on a word.
function show(block, number) {
  for (const one of block.querySelectorAll('.t2i-frame:not(.layout)')) {
    one.classList.toggle('on', one.dataset.frame === String(number));
  }
  for (const word of block.querySelectorAll('[data-show]')) {
    word.setAttribute('aria-pressed', String(word.dataset.show === String(number)));
  }
}
element.addEventListener('input', (event) => {
  if (event.target.matches('.t2i-slider')) show(element, event.target.value);
});
element.addEventListener('click', (event) => {
  const word = event.target.closest('[data-show]');
  if (word) show(word.closest('section'), word.dataset.show);
});
watch('value', () => {
  const slider = element.querySelector('.t2i-slider');
  // new pictures are shown at the place where the slider stands
  show(element, slider ? slider.value : 0);
});
